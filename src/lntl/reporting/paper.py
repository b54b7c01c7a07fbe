"""Published test accuracies on Colored MNIST, to stand beside ours."""

# By colour variance sigma^2. Source: README of the authors' repository (one run each).
BASELINE = {0.020: 0.4055, 0.025: 0.4813, 0.030: 0.5996, 0.035: 0.6626, 0.040: 0.7333, 0.045: 0.7973, 0.050: 0.8450}
LNTL = {0.020: 0.8185, 0.025: 0.8854, 0.030: 0.9137, 0.035: 0.9306, 0.040: 0.9406, 0.045: 0.9555, 0.050: 0.9618}
EPOCHS = 100  # of each of the authors' runs
