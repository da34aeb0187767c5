"""micrograd's demo: a network learns which of two interleaved half circles a point is on."""

import math
import random
import time

from tapegrad import Value
from tapegrad.nn import MLP

random.seed(1337)


def make_moons(n_samples=100, noise=0.1):
    """Draw points from two half circles.

    Returns:
        Points, and 0 or 1 for each.
    """
    X, y = [], []
    for i in range(n_samples):
        angle = random.uniform(0, math.pi)
        point = (math.cos(angle), math.sin(angle)) if i % 2 == 0 else (1 - math.cos(angle), 0.5 - math.sin(angle))
        X.append([random.gauss(c, noise) for c in point])
        y.append(i % 2)
    return X, y


# make up a dataset
X, y = make_moons(n_samples=100, noise=0.1)
y = [yi * 2 - 1 for yi in y]  # make y be -1 or 1

# initialize a model
model = MLP(2, [16, 16, 1])  # 2-layer neural network
print(model)
print("number of parameters", len(model.parameters()))


# loss function
def loss(batch_size=None):
    # inline DataLoader :)
    if batch_size is None:
        Xb, yb = X, y
    else:
        ri = random.sample(range(len(X)), batch_size)
        Xb, yb = [X[i] for i in ri], [y[i] for i in ri]
    inputs = [list(map(Value, xrow)) for xrow in Xb]

    # forward the model to get scores
    scores = list(map(model, inputs))

    # svm "max-margin" loss
    losses = [(1 + -yi * scorei).relu() for yi, scorei in zip(yb, scores)]
    data_loss = sum(losses) * (1.0 / len(losses))
    # L2 regularization
    alpha = 1e-4
    reg_loss = alpha * sum(p * p for p in model.parameters())
    total_loss = data_loss + reg_loss

    # also get accuracy
    accuracy = [(yi > 0) == (scorei.data > 0) for yi, scorei in zip(yb, scores)]
    return total_loss, sum(accuracy) / len(accuracy)


# optimization
start = time.perf_counter()
for k in range(100):
    # forward
    total_loss, acc = loss()

    # backward
    model.zero_grad()
    total_loss.backward()

    # update (sgd)
    learning_rate = 1.0 - 0.9 * k / 100
    for p in model.parameters():
        p.data -= learning_rate * p.grad

    if k % 1 == 0:
        print(f"step {k} loss {total_loss.data}, accuracy {acc * 100}%")
print(f"{10 * (time.perf_counter() - start):.2f} ms a step")

# visualize decision boundary
for row in range(12):
    mesh = [[-1.5 + column / 16, 1.25 - row / 6] for column in range(65)]
    scores = [model(list(map(Value, xrow))) for xrow in mesh]
    print("".join("#" if s.data > 0 else "." for s in scores))
