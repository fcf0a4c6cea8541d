"""From a sweep's spec to finished trials: plan (phases to runs), queue (Optuna), worker, coordinator, store."""
