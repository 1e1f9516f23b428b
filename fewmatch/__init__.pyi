from fewmatch.encoders import *
from fewmatch.errors import *
from fewmatch.fewshot import *
from fewmatch.figures import *
from fewmatch.labels import *
from fewmatch.matching import *

__version__: str
