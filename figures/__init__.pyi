from .sheet import contact_sheet as contact_sheet
from .sheet import save_figure as save_figure

__all__ = ["contact_sheet", "save_figure"]
