"""From windows and items to a model bundle.

parameters  what can be chosen, with defaults
histories   windows → all behaviours as arrays, and which of them are held out
pieces      histories → windows that a model is trained on, packed in batches
softmax     cross-entropy over many items without storing logits
ranking     NDCG of held-out items, ties counted half
checkpoint  what a run needs to go on
loop        epochs, early stopping
text_part   weight and decay of the text beside the model, by validation
fit         all of it, in order
"""
