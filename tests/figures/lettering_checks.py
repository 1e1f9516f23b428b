"""Whether everything that a figure says can be read: inside the canvas, and no text on another."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def check_letters(figure: Figure) -> None:
    """Fails where a text leaves the canvas or overlaps with another, measured as a PNG would have it; nothing is drawn for that."""
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    texts = [text for owner in (figure, *figure.axes) for text in owner.texts if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    for words, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"cut: {words}"
    for i, (words, one) in enumerate(boxes):
        for others, other in boxes[i + 1 :]:
            apart = one.x1 <= other.x0 + 1 or other.x1 <= one.x0 + 1 or one.y1 <= other.y0 + 1 or other.y1 <= one.y0 + 1
            assert apart, f"{words!r} lies on {others!r}"
