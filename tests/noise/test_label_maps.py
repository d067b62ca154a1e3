import numpy as np
import pytest

from hf_noise.noise import LabelFlips
from hf_noise.noise.label_maps import CIFAR10, CIFAR100, CIFAR100_SUPERCLASSES, LABEL_MAPS, MNIST, check_label_map

# The list that paper C's code holds for CIFAR-100, class by class.
PAPER_CIFAR100 = [
    51, 32, 11, 42, 30, 20, 7, 14, 13, 10, 16, 35, 17, 48, 18, 19, 28, 37, 24, 21, 25, 31, 39, 33, 6, 84, 45, 29, 61,
    44, 55, 38, 67, 49, 63, 46, 50, 68, 15, 40, 86, 69, 43, 88, 78, 77, 98, 52, 58, 60, 65, 53, 56, 57, 62, 72, 59, 83,
    90, 96, 71, 9, 70, 64, 66, 74, 75, 73, 76, 81, 82, 23, 95, 91, 80, 34, 12, 79, 93, 99, 36, 85, 92, 0, 94, 89, 87,
    22, 97, 41, 8, 1, 54, 27, 5, 4, 47, 3, 2, 26,
]  # fmt: skip

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_cifar100_is_the_list_of_the_paper():
    assert [CIFAR100[i] for i in range(100)] == PAPER_CIFAR100


def test_superclasses_hold_every_class_once_in_ascending_order():
    members = list(CIFAR100_SUPERCLASSES.values())
    assert len(members) == 20 and all(len(five) == 5 and list(five) == sorted(five) for five in members)
    assert sorted(sum(members, ())) == list(range(100))
    assert list(CIFAR100_SUPERCLASSES) == sorted(CIFAR100_SUPERCLASSES), "coarse labels count in alphabetical order"


def test_known_members():
    # baby, boy, girl, man and woman; bed, chair, couch, table and wardrobe.
    assert CIFAR100_SUPERCLASSES["people"] == (2, 11, 35, 46, 98)
    assert CIFAR100_SUPERCLASSES["household_furniture"] == (5, 20, 25, 84, 94)
    # apple -> mushroom, worm -> crab: the last of a superclass goes to its first.
    assert (CIFAR100[0], CIFAR100[99]) == (51, 26)


def test_five_steps_lead_back():
    map_ = np.array([CIFAR100[i] for i in range(100)])
    assert sorted(map_) == list(range(100)) and (map_ != np.arange(100)).all()
    assert (map_[map_[map_[map_[map_]]]] == np.arange(100)).all()


def test_cifar10_and_mnist():
    named = {CIFAR10_NAMES[a]: CIFAR10_NAMES[b] for a, b in CIFAR10.items()}
    assert named == {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
    assert dict(MNIST) == {2: 7, 3: 8, 5: 6, 6: 5}
    with pytest.raises(TypeError):
        MNIST[1] = 2


@pytest.mark.parametrize(
    ("name", "num_classes", "share"), [("mnist", 10, 0.4), ("cifar10", 10, 0.5), ("cifar100", 100, 1.0)]
)
def test_overall_rate_counts_the_listed_classes(name, num_classes, share):
    noise = LabelFlips.pairs(LABEL_MAPS[name], error_rate=0.4, num_classes=num_classes)
    assert noise.overall_error_rate() == pytest.approx(0.4 * share)


def test_check_label_map():
    assert check_label_map({3: 1, 0: 2}, 4) == ((0, 2), (3, 1)) == check_label_map([[3, 1], [0, 2]], 4)


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ({}, ValueError, "the mapping names no class"),
        ({0: 10}, ValueError, r"the mapping 0 -> 10 leaves the classes \[0, 10\)"),
        ({-1: 1}, ValueError, "the mapping -1 -> 1 leaves"),
        ({4: 4}, ValueError, "sends class 4 to itself; leave out classes that stay"),
        ([(1, 2), (1, 3)], ValueError, "names a class twice"),
        ([1, 2], ValueError, r"pairs \(class, partner\), got shape \[2\]"),
        ({0: 0.5}, TypeError, "classes of the mapping must be integers"),
        ({"0": 1}, TypeError, "classes of the mapping must be integers"),
    ],
)
def test_bad_maps(mapping, error, message):
    with pytest.raises(error, match=message):
        check_label_map(mapping, 10)
