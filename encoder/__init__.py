"""From text and behaviour windows to vectors. torch and transformers are imported only here.

text           normalise, language, terms: no model needed
model_folder   reference → local folder, its fingerprint and what it says of itself
loading        folder → TextEncoder
text_encoder   texts → unit vectors
items          port ItemEncoder
behaviours     window → signed, weighted behaviours
decay, window_text   port UserEncoder, two ways
factory        settings → bundle with both encoders
"""
