from .catalogue import Checkpoint as Checkpoint
from .catalogue import checkpoints as checkpoints
from .encode import encode_images as encode_images
from .errors import (
    FewmatchError as FewmatchError,
)
from .errors import (
    ImageError as ImageError,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    OutputExistsError as OutputExistsError,
)
from .errors import (
    StoreDamagedError as StoreDamagedError,
)
from .errors import (
    WeightsMissingError as WeightsMissingError,
)
from .errors import (
    WeightsRefusedError as WeightsRefusedError,
)
from .features import Encoder as Encoder
from .features import Features as Features
from .frame import Frame as Frame
from .images import read_image as read_image
from .listing import ListedImage as ListedImage
from .listing import list_images as list_images
from .loading import FrozenEncoder as FrozenEncoder
from .loading import from_state_dict as from_state_dict
from .loading import load as load
from .preprocessing import Preprocessing as Preprocessing
from .store import FeatureStore as FeatureStore
from .taps import TappedEncoder as TappedEncoder
from .taps import tapped as tapped

__all__ = [
    "Checkpoint",
    "Encoder",
    "FeatureStore",
    "Features",
    "FewmatchError",
    "Frame",
    "FrozenEncoder",
    "ImageError",
    "InputError",
    "ListedImage",
    "OutputExistsError",
    "Preprocessing",
    "StoreDamagedError",
    "TappedEncoder",
    "WeightsMissingError",
    "WeightsRefusedError",
    "checkpoints",
    "encode_images",
    "from_state_dict",
    "list_images",
    "load",
    "read_image",
    "tapped",
]
