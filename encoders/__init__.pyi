from .catalogue import Checkpoint as Checkpoint
from .catalogue import checkpoints as checkpoints
from .features import Encoder as Encoder
from .features import Features as Features
from .frame import Frame as Frame
from .images import read_image as read_image
from .layers import TappedEncoder as TappedEncoder
from .layers import tapped as tapped
from .listing import ListedImage as ListedImage
from .listing import list_images as list_images
from .loading import FrozenEncoder as FrozenEncoder
from .loading import from_state_dict as from_state_dict
from .loading import load as load
from .preprocessing import Preprocessing as Preprocessing
from .store.encode import encode_images as encode_images
from .store.store import FeatureStore as FeatureStore

__all__ = [
    "Checkpoint",
    "Encoder",
    "FeatureStore",
    "Features",
    "Frame",
    "FrozenEncoder",
    "ListedImage",
    "Preprocessing",
    "TappedEncoder",
    "checkpoints",
    "encode_images",
    "from_state_dict",
    "list_images",
    "load",
    "read_image",
    "tapped",
]
