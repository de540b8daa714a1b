"""Training on fixed data sets with Ray Train: configuration → checked inputs → `TorchTrainer` of `OfflineWorker`s."""
