"""What pre-training and evaluation both measure with: features, kNN, linear classifiers."""
