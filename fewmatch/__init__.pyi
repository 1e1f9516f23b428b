from encoders import *
from fewshot import *
from figures import *

__version__: str
