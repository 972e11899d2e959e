"""Fit a mechanism in a few lines, for tests of mechanisms alone: full batches, Adam."""

import torch


def fit(mechanism, values, parents=None, *, steps=200, learning_rate=2e-2):
    """Prepare, then solve or minimise the loss; returns the mechanism."""
    parents = parents or {}
    mechanism.prepare(values, parents)
    if not mechanism.solve(values, parents):
        generator = torch.Generator().manual_seed(0)
        optimiser = torch.optim.Adam(mechanism.parameters(), lr=learning_rate)
        for _ in range(steps):
            optimiser.zero_grad()
            mechanism.loss(values, parents, generator=generator).mean().backward()
            optimiser.step()
    mechanism.mark_fitted()
    return mechanism.eval()


def normal(*shape, seed=0):
    """Standard normals in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def codes(categories, n, seed=0):
    """Uniform category codes."""
    return torch.randint(categories, (n,), generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    """A generator."""
    return torch.Generator().manual_seed(seed)
