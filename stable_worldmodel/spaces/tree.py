"""`Dict`, a tree of stateful spaces whose leaves have dotted names."""

from __future__ import annotations

import difflib
import functools
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym

from stable_worldmodel.errors import ContractError
from stable_worldmodel.spaces.leaf import Constraint, Leaf, SamplingError, Stateful, Tracked, attempts

logger = logging.getLogger(__name__)

ALL = "all"  # the name that covers every factor


class Dict(Stateful, gym.spaces.Dict):
    """A mapping of spaces, nested at will, whose leaves are addressed by dotted names such as `agent.color`.

    Keys keep the order in which they were given. The value lives in the leaves; plain Gymnasium spaces may be
    children too, their value is kept here.

    Args:
        *args: positional arguments of `gymnasium.spaces.Dict`.
        init_value: defaults that override those of the children, by key, dotted name or nested mapping.
        constrain_fn: called with the whole mapping; truthy means allowed.
        sampling_order: keys of this level in the order in which they are sampled. A space whose constraint reads a
            sibling's `.value` comes after it. Keys left out follow in their own order.
        **kwargs: keyword arguments of `gymnasium.spaces.Dict`.

    Raises:
        ContractError: a key cannot be part of a dotted name, or `sampling_order` or `init_value` does not fit.
    """

    def __init__(
        self,
        *args: Any,
        init_value: Mapping[str, Any] | None = None,
        constrain_fn: Constraint | None = None,
        sampling_order: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        spaces = args[0] if args else kwargs.pop("spaces", None)
        # Gymnasium sorts the keys of a mapping but not of pairs; the flag says so to what it derives from this space.
        super().__init__(list(spaces.items()) if isinstance(spaces, Mapping) else spaces, *args[1:], **kwargs)
        self.sort_keys = False
        self.constrain_fn = constrain_fn
        self._nodes: dict[str, Leaf | Dict] = {key: _node(key, space) for key, space in self.spaces.items()}
        self._order = _sampling_order(list(self._nodes), sampling_order)
        if init_value is not None:
            self.set_init_value(init_value)
            for leaf in self._leaves():
                leaf.reset()

    def __setitem__(self, key: str, value: gym.Space[Any]) -> None:
        """Add or replace a child; a new one is sampled last."""
        super().__setitem__(key, value)
        self._nodes[key] = _node(key, value)
        if key not in self._order:
            self._order.append(key)

    @property
    def value(self) -> dict[str, Any]:
        """Copies of the children's values; None for a leaf that has neither a default nor been sampled or set."""
        return {key: node.value for key, node in self._nodes.items()}

    @property
    def init_value(self) -> dict[str, Any]:
        """Copies of the children's defaults; a child without one contributes a new sample."""
        defaults = {key: node.init_value for key, node in self._nodes.items()}
        return {key: self._nodes[key].sample(set_value=False) if d is None else d for key, d in defaults.items()}

    @property
    def sampling_order(self) -> list[str]:
        """Dotted names of all groups and leaves in sampling order, parents before their children."""
        return [name for name, _ in self._walk(lambda node: node._order)]

    def names(self) -> list[str]:
        """Dotted names of the leaves in insertion order."""
        return [name for name, node in self._walk(lambda node: node._nodes) if isinstance(node, Leaf)]

    def to_str(self) -> str:
        """The tree as text: one line per space, indented by depth, with the current values."""
        lines = []
        for name, node in self._walk(lambda node: node._nodes):
            key = name.rpartition(".")[2]
            text = f"{key}: {node!r} = {node.value}" if isinstance(node, Leaf) else key
            lines.append("  " * name.count(".") + text)
        return "\n".join(lines)

    def seed(self, seed: Any = None) -> dict[str, Any]:
        """Seed every child and return the seeds by key.

        An integer gives each child a seed of its own that depends on `seed` and the key only, so a factor keeps its
        stream when others are added or reordered. `None` takes fresh entropy; a mapping seeds each child explicitly.
        """
        if isinstance(seed, Mapping):
            if seed.keys() != self.spaces.keys():
                raise ContractError(f"seed has the keys {list(seed)}, expected {list(self.spaces)}")
            return {key: space.seed(seed[key]) for key, space in self.spaces.items()}
        base = _hash64(str(super().seed(seed)))
        # Distinct for the keys of this space, and far apart for neighbouring seeds, which episodes have.
        return {key: space.seed(base ^ _key_hash(key)) for key, space in self.spaces.items()}

    def reset(self) -> None:
        """Return every leaf to its default; a leaf without one is sampled."""
        for key in self._order:
            node = self._nodes[key]
            node.reset()
            if isinstance(node, Leaf) and node._value is None:
                self._sample_child(key)

    def contains(self, x: Any) -> bool:
        """Whether `x` is a mapping with all keys, each child accepts its part and the constraint the whole.

        Further keys are ignored.
        """
        if not isinstance(x, Mapping) or not self.spaces.keys() <= x.keys():
            return False
        return all(space.contains(x[key]) for key, space in self.spaces.items()) and self._accepts(x)

    def check(self, debug: bool = False) -> bool:
        """Whether every current value is legal; `debug` logs the names of those that are not."""
        names = self.violations()
        for name in names if debug else ():
            logger.warning("%s: value %r is not allowed", name, self.value if name == ALL else self._find(name).value)
        return not names

    def violations(self) -> list[str]:
        """Names of the leaves that have no value or an illegal one, and of the groups whose constraint fails.

        "all" stands for the constraint of this space itself, so that `update(violations())` draws what is wrong anew.
        A group's constraint is tested when all its leaves are legal.
        """
        return [name or ALL for name in self._illegal("")]

    def sample(
        self,
        *args: Any,
        max_tries: int = 1000,
        warn_after_s: float | None = 5.0,
        set_value: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Sample the children in order, all again until the constraint accepts the whole.

        Args:
            *args: `mask` and `probability`, mappings that are split by key.
            max_tries: draws of the whole, and of each child, before giving up.
            warn_after_s: log one warning when it takes longer than this; None never warns.
            set_value: whether the draw becomes the current value; constraints that read a sibling's `.value` then see
                the siblings already drawn.
            **kwargs: `mask` and `probability` by name.

        Raises:
            SamplingError: a RuntimeError; every draw was rejected. All values are as before.
        """
        masks = _split(list(self.spaces), dict(zip(("mask", "probability")[: len(args)], args, strict=True)) | kwargs)
        controls = {"max_tries": max_tries, "warn_after_s": warn_after_s, "set_value": set_value}
        before = self._save()
        try:
            for _ in attempts(self, max_tries, warn_after_s):
                parts = {key: self._sample_child(key, **controls, **masks.get(key, {})) for key in self._order}
                drawn = {key: parts[key] for key in self._nodes}
                if self._accepts(drawn):
                    break
        except BaseException:
            _restore(before)
            raise
        return drawn

    def update(self, keys: Iterable[str], fixed: Mapping[str, Any] | None = None) -> None:
        """Resample the named factors in sampling order; all others keep their value.

        The named factors are drawn again until the constraints of the groups that hold them accept.

        Args:
            keys: dotted names. A group covers everything below it, "all" covers everything.
            fixed: values as for `set_value`, set beforehand and not resampled, so that the draws fit to them.

        Raises:
            ContractError: a name is unknown, `keys` is a single string, or a fixed value is illegal.
            SamplingError: a ContractError; 1000 draws were rejected. In all cases the values are as before.
        """
        fitted = self._fitted(fixed or {})
        names = [name for name in self._leaf_names(keys) if name not in fitted]
        if not names and not fitted:
            return
        before = self._save()
        try:
            for leaf, value in fitted.values():
                leaf._value = value
            if names:
                self._redraw(names)
            self._require(fitted, Stateful._accepts)
        except BaseException:
            _restore(before)
            raise

    def set_value(self, variations_values: Mapping[str, Any]) -> None:
        """Set named leaves; all or, when anything is wrong, none.

        Args:
            variations_values: dotted name -> value, with the rules of `Box.set_value`. A group takes a mapping. The
                constraints of the named leaves and of the groups that hold them are tested after all are set.

        Raises:
            ContractError: a name is unknown, a value does not fit, or a constraint rejects.
        """
        self.update((), fixed=variations_values)

    def set_init_value(self, variations_values: Mapping[str, Any]) -> None:
        """Set the defaults of named leaves; all or, when anything is wrong, none. Current values stay.

        Arguments and errors are those of `set_value`; constraints are tested with every leaf at its default.
        """
        fitted = self._fitted(variations_values)
        values = self._save()
        defaults = [(leaf, leaf._init_value) for leaf, _ in fitted.values()]
        try:
            for leaf, value in fitted.values():
                leaf._init_value = value
            for leaf in self._leaves():
                leaf._value = leaf._value if leaf._init_value is None else leaf._init_value
            self._require(fitted, Stateful._accepts_default)
        except BaseException:
            for leaf, value in defaults:
                leaf._init_value = value
            raise
        finally:
            _restore(values)

    def _walk(self, keys: Callable[[Dict], Iterable[str]]) -> Iterator[tuple[str, Leaf | Dict]]:
        """All dotted names below this space with their nodes, parents first, each level in the order of `keys`."""
        for key in keys(self):
            node = self._nodes[key]
            yield key, node
            if isinstance(node, Leaf):
                continue
            for name, child in node._walk(keys):
                yield f"{key}.{name}", child

    def _leaves(self) -> list[Leaf]:
        leaves: list[Leaf] = []
        for node in self._nodes.values():
            # Tested against Leaf here and below: Dict has an ABC's isinstance, which is ten times slower.
            leaves.extend((node,) if isinstance(node, Leaf) else node._leaves())
        return leaves

    def _save(self) -> list[tuple[Leaf, Any]]:
        return [(leaf, leaf._value) for leaf in self._leaves()]

    def _find(self, name: str) -> Leaf | Dict:
        if not isinstance(name, str):
            raise ContractError(f"{name!r}: expected the dotted name of a factor, found {type(name).__name__}")
        node: Leaf | Dict | None = self
        for key in name.split("."):
            node = None if node is None or isinstance(node, Leaf) else node._nodes.get(key)
        if node is None:
            close = difflib.get_close_matches(name, self.sampling_order, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"its factors are {', '.join(self.names())}"
            raise ContractError(f"{name!r} is not a factor of this space; {hint}")
        return node

    def _leaf_names(self, keys: Iterable[str]) -> list[str]:
        if isinstance(keys, str):
            raise ContractError(f"{keys!r}: expected a list of names, found one string; write [{keys!r}]")
        leaves: list[str] = []
        for name in keys:
            node = self if name == ALL else self._find(name)
            prefix = "" if node is self else f"{name}."
            leaves.extend((name,) if isinstance(node, Leaf) else (prefix + below for below in node.names()))
        return leaves

    def _sample_child(self, key: str, **kwargs: Any) -> Any:
        try:
            return self._nodes[key].sample(**kwargs)
        except SamplingError as error:
            raise error.below(key) from None

    def _redraw(self, names: list[str]) -> None:
        """Resample the leaves `names` in order, all again until the constraint of this space accepts."""
        below: dict[str, list[str]] = {}
        for name in names:
            key, _, rest = name.partition(".")
            below.setdefault(key, []).append(rest)
        for _ in attempts(self, 1000, 5.0):
            for key in self._order:
                if key in below:
                    self._redraw_child(key, below[key])
            if self._legal(Stateful._accepts):
                return

    def _redraw_child(self, key: str, names: list[str]) -> None:
        node = self._nodes[key]
        if isinstance(node, Leaf):
            self._sample_child(key)
            return
        try:
            node._redraw(names)
        except SamplingError as error:
            raise error.below(key) from None

    def _legal(self, accepts: Callable[[Stateful, Any], bool]) -> bool:
        """Whether the constraint of this space accepts the current value; it is not asked while a leaf has none."""
        if self.constrain_fn is None or any(leaf._value is None for leaf in self._leaves()):
            return True
        return accepts(self, self.value)

    def _illegal(self, prefix: str) -> list[str]:
        names: list[str] = []
        for key, node in self._nodes.items():
            if not isinstance(node, Leaf):
                names += node._illegal(f"{prefix}{key}.")
            elif node._value is None or not node._accepts(node._value):
                names.append(prefix + key)
        return names if names or self._legal(Stateful._accepts) else [prefix[:-1]]

    def _fitted(self, values: Mapping[str, Any]) -> dict[str, tuple[Leaf, Any]]:
        """Leaves and their new values, in bounds, by dotted name."""
        if not isinstance(values, Mapping):
            raise ContractError(f"{values!r}: expected a mapping of factor names to values")
        fitted: dict[str, tuple[Leaf, Any]] = {}
        for name, value in values.items():
            node = self._find(name)
            if isinstance(node, Leaf):
                try:
                    fitted[name] = node, node._fitted(value)
                except ContractError as error:
                    raise ContractError(f"{name}: {error}") from None
            elif isinstance(value, Mapping):
                fitted |= self._fitted({f"{name}.{key}": part for key, part in value.items()})
            else:
                raise ContractError(f"{name}: {value!r} given for a group of factors; expected a mapping")
        return fitted

    def _require(self, fitted: dict[str, tuple[Leaf, Any]], accepts: Callable[[Stateful, Any], bool]) -> None:
        """Raise ContractError unless the constraints of these leaves and of the groups that hold them accept."""
        groups = {""}
        for name, (leaf, value) in fitted.items():
            if not accepts(leaf, value):
                raise ContractError(f"{name}: {value!r} is rejected by constrain_fn of {leaf!r}")
            keys = name.split(".")
            groups.update(".".join(keys[:depth]) for depth in range(1, len(keys)))
        for group in sorted(groups, key=len, reverse=True):
            node = self._find(group) if group else self
            if not isinstance(node, Leaf) and not node._legal(accepts):
                raise ContractError(f"{group or ALL}: {node.value!r} is rejected by the constrain_fn of this group")


def _node(key: Any, space: gym.Space[Any]) -> Leaf | Dict:
    if not isinstance(key, str) or not key or "." in key or key == ALL:
        raise ContractError(f"key {key!r}: expected a non-empty string without '.', other than {ALL!r}")
    return space if isinstance(space, Leaf | Dict) else Tracked(space)


def _sampling_order(keys: list[str], order: Sequence[str] | None) -> list[str]:
    if order is None:
        return keys
    order = list(order)
    if len(set(order)) < len(order) or not set(order) <= set(keys):
        raise ContractError(f"sampling_order={order}: expected each of {keys} at most once and nothing else")
    missing = [key for key in keys if key not in order]
    if missing:
        logger.warning("sampling_order lacks %s: sampled last", missing)
    return order + missing


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


_key_hash = functools.cache(_hash64)


def _split(keys: list[str], masks: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn `{"mask": {key: part}}` into `{key: {"mask": part}}`."""
    parts: dict[str, dict[str, Any]] = {}
    for name, mask in masks.items():
        if mask is None:
            continue
        if not isinstance(mask, Mapping) or not mask.keys() <= set(keys):
            raise ContractError(f"{name}={mask!r}: expected a mapping with keys of {keys}")
        for key, part in mask.items():
            parts.setdefault(key, {})[name] = part
    return parts


def _restore(saved: list[tuple[Leaf, Any]]) -> None:
    for leaf, value in saved:
        leaf._value = value
