"""The scenes: fixed by their seed, drawn as asked, and captioned truthfully."""

import random
from dataclasses import replace

import pytest

from demo.scenes import (
    BACKGROUNDS,
    COLOURS,
    Description,
    Mention,
    Scene,
    Thing,
    caption,
    change_one_attribute,
    describe,
    describe_almost,
    describe_another,
    draw,
    mismatched_caption,
    nearly_right_caption,
    sample_scene,
    wording,
)

SEEDS = range(200)


def star(colour: str = "red", x: float = 0.25) -> Thing:
    return Thing("star", colour, "large", x=x, y=0.5, radius=0.2, turn_degrees=0, shade=1)


def ring(x: float = 0.75) -> Thing:
    return Thing("ring", "blue", "small", x=x, y=0.5, radius=0.12, turn_degrees=0, shade=1)


def claim(*mentions: Mention, relation: str | None = None, background: str | None = None) -> Description:
    return Description(mentions, relation, background)


RED_STAR = Mention("star", "red", None)
BLUE_RING = Mention("ring", "blue", "small")
BOTH = Scene((star(), ring()), "white")


def test_a_seed_fixes_the_scene_its_picture_and_its_captions() -> None:
    def everything(seed: int) -> tuple[object, ...]:
        rng = random.Random(seed)
        scene = sample_scene(rng)
        captions = caption(scene, rng), mismatched_caption(scene, rng), nearly_right_caption(scene, rng)
        return scene, draw(scene, 64).tobytes(), captions

    assert everything(5) == everything(5)
    assert everything(5) != everything(6)


def test_scenes_are_varied() -> None:
    scenes = [sample_scene(random.Random(seed)) for seed in SEEDS]
    assert len(set(scenes)) == len(scenes)
    assert {len(scene.things) for scene in scenes} == {1, 2}
    assert {thing.colour for scene in scenes for thing in scene.things} == set(COLOURS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.relation for scene in scenes} == {None, "left of", "right of", "above", "below"}


def test_nothing_is_drawn_in_the_colour_of_its_background() -> None:
    for seed in SEEDS:
        rng = random.Random(seed)
        scene = sample_scene(rng)
        for each in (scene, change_one_attribute(scene, rng)):
            assert all(thing.colour != each.background for thing in each.things)


def test_a_palette_is_kept_to() -> None:
    greys = ("black", "grey", "white")
    for seed in SEEDS:
        scene = sample_scene(random.Random(seed), colours=greys, backgrounds=greys)
        assert {scene.background, *(thing.colour for thing in scene.things)} <= set(greys)


def test_the_picture_has_the_size_asked_for_and_the_colours_named() -> None:
    picture = draw(Scene((star(x=0.5),), "white"), 128)
    assert (picture.mode, picture.size) == ("RGB", (128, 128))
    assert picture.getpixel((64, 64)) == COLOURS["red"]
    assert picture.getpixel((2, 2)) == BACKGROUNDS["white"]


def test_a_ring_has_a_hole_and_a_circle_has_none() -> None:
    hollow = Scene((ring(x=0.5),), "white")
    solid = replace(hollow, things=(replace(hollow.things[0], shape="circle"),))
    assert draw(hollow, 128).getpixel((64, 64)) == BACKGROUNDS["white"]
    assert draw(solid, 128).getpixel((64, 64)) == COLOURS["blue"]


@pytest.mark.parametrize("size", [(120, 160), (160, 120)])
def test_a_centre_crop_of_an_oblong_picture_is_the_square_picture(size: tuple[int, int]) -> None:
    width, height = size
    left, top = (width - 120) // 2, (height - 120) // 2
    crop = draw(BOTH, size).crop((left, top, left + 120, top + 120))
    assert crop.tobytes() == draw(BOTH, 120).tobytes()


def test_edges_are_antialiased() -> None:
    colours = draw(Scene((star(x=0.5),), "white"), 64).getcolors()
    assert colours is not None
    assert len(colours) > 10


@pytest.mark.parametrize(
    "true",
    [
        claim(RED_STAR),
        claim(BLUE_RING, background="white"),
        claim(RED_STAR, BLUE_RING),
        claim(RED_STAR, BLUE_RING, relation="left of"),
        claim(BLUE_RING, RED_STAR, relation="right of", background="white"),
        claim(Mention(None, "blue", None), Mention("star", None, None)),
    ],
)
def test_what_is_so_holds(true: Description) -> None:
    assert true.holds(BOTH)


@pytest.mark.parametrize(
    "false",
    [
        claim(Mention("star", "blue", None)),
        claim(Mention("star", None, "small")),
        claim(RED_STAR, background="grey"),
        claim(RED_STAR, BLUE_RING, relation="right of"),
        claim(BLUE_RING, RED_STAR, relation="left of"),
        claim(RED_STAR, BLUE_RING, relation="above"),
        claim(RED_STAR, RED_STAR),
    ],
)
def test_what_is_not_so_does_not_hold(false: Description) -> None:
    assert not false.holds(BOTH)


def test_two_things_cannot_be_seen_where_there_is_one() -> None:
    assert not claim(RED_STAR, BLUE_RING).holds(Scene((star(),), "white"))


def test_descriptions_of_a_scene_hold_and_the_deliberately_wrong_ones_do_not() -> None:
    for seed in SEEDS:
        rng = random.Random(seed)
        scene = sample_scene(rng)
        assert describe(scene, rng).holds(scene)
        assert not describe_another(scene, rng).holds(scene)
        assert not describe_almost(scene, rng).holds(scene)


def test_one_change_leaves_a_scene_that_can_be_told_from_the_first() -> None:
    for seed in SEEDS:
        rng = random.Random(seed)
        scene = sample_scene(rng)
        changed = change_one_attribute(scene, rng)
        assert len(changed.things) == len(scene.things)
        assert draw(changed, 64).tobytes() != draw(scene, 64).tobytes()


def test_one_claim_has_many_wordings_that_all_name_the_things() -> None:
    rng = random.Random(0)
    told = claim(RED_STAR, Mention("triangle", "green", "large"), relation="above", background="grey")
    wordings = {wording(told, rng) for _ in range(100)}
    assert len(wordings) > 30
    assert all(word in text for text in wordings for word in ("red star", "green triangle", "gr"))
