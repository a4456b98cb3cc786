"""From text and behaviour windows to vectors. torch and transformers are imported only here.

text           normalise, language, terms: no model needed
model_folder   reference → local folder, its fingerprint and what it says of itself
loading        folder → TextEncoder
text_encoder   texts → unit vectors
items          port ItemEncoder over a text model, and over text_features
text_features  text vector and title → fitted features
whitening       text vectors spread over their space: fit, arrays, port ItemEncoder
title_terms, sparse_decay   TF-IDF of titles; windows → sparse vectors
zero_shot       constants of the encoder that needs no training
behaviours     window → signed, weighted behaviours
decay, window_text   port UserEncoder, two ways
sequence        both ports over a sequence model
sequence_model  the model; sequence_rows, sequence_packed (CPU), sequence_cuda run it: torch, numpy
sequence_input  windows → arrays; sequence_weights: seed or file → model
parts           a sequence vector and a text vector as one
bundle_folder   model bundle ↔ folder
training        windows and items → model bundle
spans           numpy helper
evaluation      how good vectors are
threads         the cores that may be used
factory        settings → bundle with both encoders
"""
