"""The eigengap loss in plain PyTorch: a network learns the signal subspace of a linear array."""

import torch

from trainer import eigengap_loss, spectrum

BATCH, ELEMENTS, SNAPSHOTS, SOURCES, RANK = 64, 16, 8, 2, 4
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Linear(2 * ELEMENTS**2, 256),
    torch.nn.ReLU(),
    torch.nn.Linear(256, 2 * ELEMENTS * RANK),
)
optimizer = torch.optim.Adam(network.parameters(), 1e-3)
for step in range(201):
    phase = torch.pi * torch.sin(torch.pi * (torch.rand(BATCH, 1, SOURCES) - 0.5))
    steering = torch.exp(1j * phase * torch.arange(ELEMENTS)[:, None])  # [B, N, K]
    signals = torch.randn(BATCH, SOURCES, SNAPSHOTS, dtype=torch.complex64)
    noise = torch.randn(BATCH, ELEMENTS, SNAPSHOTS, dtype=torch.complex64)
    snapshots = steering @ signals + 0.5**0.5 * noise
    sample = torch.view_as_real(snapshots @ snapshots.mH / SNAPSHOTS).flatten(1)
    factor = torch.view_as_complex(network(sample).reshape(BATCH, ELEMENTS, RANK, 2))
    factor = factor / torch.linalg.matrix_norm(factor)[:, None, None]  # tr R = 1
    target, found = torch.linalg.qr(steering).Q, spectrum(factor=factor, shift=1e-3)
    loss = eigengap_loss(found, SOURCES, definition="subspace", margin=0.0, target=target).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step:3d}: {1 - loss.item():.2f} of the signal subspace is captured")
