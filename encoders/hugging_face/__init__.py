"""Networks of the transformers library as encoders: their files, their preprocessing, and which outputs count."""
