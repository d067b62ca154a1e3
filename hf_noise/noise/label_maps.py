"""The wrong classes of paper C: true class -> the class it is mistaken for, for `LabelFlips.pairs`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hf_noise.noise.arrays import check_num_classes, integers

__all__ = ["CIFAR10", "CIFAR100", "CIFAR100_SUPERCLASSES", "LABEL_MAPS", "MNIST", "check_label_map"]

#: 2 -> 7, 3 -> 8, 5 <-> 6.
MNIST: Mapping[int, int] = MappingProxyType({2: 7, 3: 8, 5: 6, 6: 5})

#: bird -> airplane, cat <-> dog, deer -> horse, truck -> automobile.
CIFAR10: Mapping[int, int] = MappingProxyType({2: 0, 3: 5, 4: 7, 5: 3, 9: 1})

#: The five fine classes of each superclass of CIFAR-100, in the order of the data set's coarse labels.
CIFAR100_SUPERCLASSES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "aquatic_mammals": (4, 30, 55, 72, 95),
        "fish": (1, 32, 67, 73, 91),
        "flowers": (54, 62, 70, 82, 92),
        "food_containers": (9, 10, 16, 28, 61),
        "fruit_and_vegetables": (0, 51, 53, 57, 83),
        "household_electrical_devices": (22, 39, 40, 86, 87),
        "household_furniture": (5, 20, 25, 84, 94),
        "insects": (6, 7, 14, 18, 24),
        "large_carnivores": (3, 42, 43, 88, 97),
        "large_man-made_outdoor_things": (12, 17, 37, 68, 76),
        "large_natural_outdoor_scenes": (23, 33, 49, 60, 71),
        "large_omnivores_and_herbivores": (15, 19, 21, 31, 38),
        "medium_mammals": (34, 63, 64, 66, 75),
        "non-insect_invertebrates": (26, 45, 77, 79, 99),
        "people": (2, 11, 35, 46, 98),
        "reptiles": (27, 29, 44, 78, 93),
        "small_mammals": (36, 50, 65, 74, 80),
        "trees": (47, 52, 56, 59, 96),
        "vehicles_1": (8, 13, 48, 58, 90),
        "vehicles_2": (41, 69, 81, 85, 89),
    }
)

#: Inside each superclass every class goes to the next one, the last to the first.
CIFAR100: Mapping[int, int] = MappingProxyType(
    {
        fine: successor
        for members in CIFAR100_SUPERCLASSES.values()
        for fine, successor in zip(members, members[1:] + members[:1])
    }
)

#: The maps by the names that the builders give their data sets.
LABEL_MAPS: Mapping[str, Mapping[int, int]] = MappingProxyType(
    {"mnist": MNIST, "cifar10": CIFAR10, "cifar100": CIFAR100}
)


def check_label_map(mapping: Any, num_classes: int) -> tuple[tuple[int, int], ...]:
    """The map as pairs (class, partner) in ascending order, or an error.

    Args:
        mapping: a mapping of classes, or pairs of them.
        num_classes: C; classes are 0 .. C - 1.

    Raises:
        ValueError: it is empty, leaves [0, C), names a class twice or maps one to itself.
        TypeError: classes are not integers.
    """
    num_classes = check_num_classes(num_classes, 20)
    try:
        pairs = list(mapping.items() if isinstance(mapping, Mapping) else mapping)
    except (TypeError, NotImplementedError) as error:
        raise TypeError(f"the mapping must be {{class: partner, ...}} or pairs, got {mapping!r:.80}") from error
    if not pairs:
        raise ValueError("the mapping names no class; give {class: partner, ...}, such as label_maps.CIFAR10")
    array = integers("classes of the mapping", pairs)
    if array.shape != (len(pairs), 2):
        raise ValueError(f"the mapping must hold pairs (class, partner), got shape {list(array.shape)}")
    for source, target in array.tolist():
        if not (0 <= source < num_classes and 0 <= target < num_classes):
            raise ValueError(f"the mapping {source} -> {target} leaves the classes [0, {num_classes})")
        if source == target:
            raise ValueError(f"the mapping sends class {source} to itself; leave out classes that stay")
    if len(set(array[:, 0].tolist())) < len(pairs):
        raise ValueError("the mapping names a class twice; each class has one partner")
    return tuple(sorted((source, target) for source, target in array.tolist()))
