"""Features and labels in, predictions and accuracies out: centring, episodes, few-shot methods, evaluation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
