from encoders import *
from fewshot import *
from figures import *
from matching import *

__version__: str
