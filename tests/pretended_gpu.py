"""A pretended GPU: tensors that say they are on `cuda`, hold their values on the CPU, and tell.

    with PretendedGpu() as gpu:
        TrainingLoop(config, torch.device("cuda")).step()
    print(gpu.waits)

Unlike on PyTorch's `meta` device or under its FakeTensorMode, values are real: control flow that
reads them goes on, and results can be compared with those of the CPU. As on CUDA, an operation on
tensors of two devices raises, but for the few that CUDA lets pass. What would make the host wait
for the GPU is kept in `waits`, each with the line of the project that asked for it.

To autograd, these tensors are on the `meta` device, whose backward pass runs on any build of
PyTorch. Not seen here: whether CUDA has a kernel for the dtype, its rounding, its speed, memory.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
STAND_IN = torch.device("meta")
"""What autograd and C++ see in place of `GPU`."""
ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / package) for package in ("trainer", "search", "examples"))

aten = torch.ops.aten
COUNTED = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
"""Operations with as many results as values say, which the host must know."""
READING = {"_local_scalar_dense", "equal", "multinomial"}
"""Operations that hand a value to the host."""
CHECKED = {"_linalg_eigh", "_linalg_svd", "_linalg_check_errors", "linalg_eig", "linalg_lstsq"}
"""Decompositions whose status PyTorch reads before it returns."""
FILLING = {"fill", "fill_", "masked_fill", "masked_fill_", "index_put", "index_put_"}
"""Operations that take a CPU number beside tensors of the GPU though they are not pointwise."""


class Wait(NamedTuple):
    """A point at which the host waits for the GPU.

    Attributes:
        kind: `read` (a value), `count` (the size of a result), `status` (of a decomposition),
            `upload` or `download` (from pageable memory, after which PyTorch synchronises).
        operation: of ATen.
        where: `path:function` of the project's innermost frame.
    """

    kind: str
    operation: str
    where: str


class PretendedTensor(Tensor):
    """A tensor on the pretended GPU; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendedTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=STAND_IN,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def __repr__(self, **_: Any) -> str:
        return f"pretended {self.held!r}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{func} outside of `with PretendedGpu()`")


class PretendedGenerator(torch.Generator):
    """A generator that draws for tensors of one device only, as those of CUDA do."""

    def __new__(cls, device: Any = "cpu") -> "PretendedGenerator":
        made = super().__new__(cls, "cpu")
        made.of = torch.device(device).type
        return made

    @property
    def device(self) -> torch.device:
        return GPU if self.of == "cuda" else CPU


class PretendedGpu(contextlib.ExitStack):
    """A machine with one GPU, while it is entered.

    Attributes:
        waits: in order.
        operations: names of all that ran on the GPU, `aten::mul.Tensor`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.operations: set[str] = set()

    def __enter__(self) -> "PretendedGpu":
        super().__enter__()
        patch = self.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch, "Generator", PretendedGenerator)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "get_device_name", lambda device=None: "pretended")
        patch.setattr(torch.cuda, "synchronize", lambda device=None: self.wait("read", "sync"))
        self.callback(_forget_constants)  # a real GPU must not be handed what was kept here
        self.enter_context(_Operations(self))
        self.enter_context(_Calls(self))
        return self

    def wait(self, kind: str, operation: str) -> None:
        """Keep a wait of the project's innermost line."""
        frame = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(OURS):
            frame = frame.f_back
        where = "tests"
        if frame is not None:
            path = Path(frame.f_code.co_filename).relative_to(ROOT)
            where = f"{path}:{frame.f_code.co_name}"
        self.waits.append(Wait(kind, operation, where))


def _forget_constants() -> None:
    for name in [name for name in sys.modules if name.startswith("trainer.")]:
        for value in vars(sys.modules[name]).values():
            if clear := getattr(value, "cache_clear", None):
                clear()


class _Calls(TorchFunctionMode):
    """Turns `cuda` into the device that C++ sees, in all that Python calls."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], PretendedTensor):
            return args[0].cpu().tolist()
        if func is torch.unravel_index and isinstance(args[0], PretendedTensor):
            # in Python below this mode, where `cuda` is not replaced
            self._gpu.wait("upload", "unravel_index")
            return tuple(map(PretendedTensor, func(args[0].held, *args[1:], **kwargs)))
        if func is Tensor.cuda:
            func, args = Tensor.to, (args[0], STAND_IN)
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            return self._made_of_data(func, args, kwargs)
        if (generator := kwargs.get("generator")) is not None:
            drawn = kwargs.get("device") or next(
                (x.device for x in args if isinstance(x, Tensor)), CPU
            )
            if generator.device.type != torch.device(drawn).type:
                raise RuntimeError(f"{func}: generator on {generator.device}, tensor on {drawn}")
        if "device" in kwargs:
            kwargs["device"] = _stand_in(kwargs["device"])
        if func is Tensor.to:
            args = tuple(map(_stand_in, args))
        return func(*args, **kwargs)

    def _made_of_data(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
        # such data reach a GPU by way of the CPU
        device = kwargs.pop("device", None)
        if func is Tensor.new_tensor:
            device = args[0].device if device is None else device
            kwargs.setdefault("dtype", args[0].dtype)
            func, args = torch.tensor, args[1:]
        if isinstance(args[0], PretendedTensor):
            return args[0].to(_stand_in(device or GPU), **kwargs)
        made = func(*args, **kwargs)
        return made if device is None else made.to(_stand_in(device))


def _stand_in(device: Any) -> Any:
    if isinstance(device, str | torch.device) and str(device).startswith("cuda"):
        return STAND_IN
    return device


class _Operations(TorchDispatchMode):
    """Runs every operation on the values, and keeps CUDA's rules about devices."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the compiler is imported, for seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in given if isinstance(x, PretendedTensor)]
        name = func.overloadpacket.__name__
        onto = bool(there)
        if kwargs.get("device") is not None:
            onto = torch.device(kwargs["device"]).type in (STAND_IN.type, GPU.type)
            kwargs["device"] = CPU
        if there or onto:
            self._gpu.operations.add(func.name())
            self._follow_rules(func, name, args, kwargs, given, there, onto)
        with _lazy_views():
            held = func(*tree_map(_held, args), **tree_map(_held, kwargs))
            held = tree_map(_resolved, held)
        if not onto:
            return held
        back = {id(x.held): x for x in there}  # operations in place return what they were given

        def there_again(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return back[id(x)] if id(x) in back else PretendedTensor(x)

        return tree_map(there_again, held)

    def _follow_rules(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: Any,
        given: list[Tensor],
        there: list[PretendedTensor],
        onto: bool,
    ) -> None:
        wait = self._gpu.wait
        here = [x for x in given if not isinstance(x, PretendedTensor)]
        if name in ("_to_copy", "copy_", "_copy_from"):
            if here or not onto:
                wait(
                    "upload" if isinstance(given[-1], PretendedTensor) is False else "download",
                    name,
                )
            return
        indices = []
        if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
            indices = [x for x in args[1] if x is not None]
            here = [x for x in here if not any(x is index for index in indices)]
            if any(not isinstance(index, PretendedTensor) for index in indices):
                wait("upload", name)
            masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
            fills = name.startswith(("index_put", "_index_put")) and args[2].numel() == 1
            if masks and not (fills and len(masks) == len(indices) == 1):
                wait("count", name)
        number = all(x.dim() == 0 for x in here)
        if (
            here
            and there
            and not (number and (torch.Tag.pointwise in func.tags or name in FILLING))
        ):
            raise RuntimeError(f"{func.name()}: tensors on the GPU and on the CPU")
        if name in COUNTED or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            wait("count", name)
        if name in READING:
            wait("read", name)
        if name in CHECKED:
            wait("status", name)


@contextlib.contextmanager
def _lazy_views() -> Iterator[None]:
    """Let values be conjugated and negated lazily, which PyTorch does above a dispatch mode."""
    keys = torch._C.DispatchKey.Conjugate, torch._C.DispatchKey.Negative
    first, second = (torch._C._SetExcludeDispatchKeyGuard(key, False) for key in keys)
    with first, second:
        yield


def _resolved(x: Any) -> Any:
    # C++ does not see whether the values behind a tensor are still to be conjugated
    return x.resolve_conj().resolve_neg() if isinstance(x, Tensor) else x


def _held(x: Any) -> Any:
    return x.held if isinstance(x, PretendedTensor) else x
