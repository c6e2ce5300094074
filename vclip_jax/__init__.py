"""Language-image models of the retina in JAX, trained without patient data."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vclip_jax.predict.pretrained import Pretrained, load

__all__ = ["Pretrained", "load"]


def __getattr__(name: str) -> Any:
    # On demand: processes that only decode or render should not wait for JAX.
    if name in __all__:
        from vclip_jax.predict import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module 'vclip_jax' has no attribute {name!r}")
