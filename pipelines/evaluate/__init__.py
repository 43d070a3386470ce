"""How good a model is on labelled data, language by language."""
