"""Scenes of one or two coloured shapes: sampling, drawing, describing, and telling true captions from false.

Everything random comes from the `random.Random` that the caller passes, so a seed fixes the scenes, their
pictures and their captions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (214, 36, 38),
    "orange": (250, 140, 20),
    "yellow": (248, 216, 45),
    "green": (42, 160, 62),
    "blue": (36, 88, 212),
    "purple": (126, 52, 172),
    "pink": (250, 132, 190),
    "brown": (120, 72, 36),
    "black": (22, 22, 22),
    "white": (250, 250, 250),
    "grey": (122, 122, 122),
}
BACKGROUNDS: dict[str, RGB] = {
    "white": (246, 246, 246),
    "black": (14, 14, 14),
    "grey": (168, 168, 168),
    "beige": (226, 206, 170),
    "light blue": (168, 210, 240),
}
RADII: dict[str, tuple[float, float]] = {"small": (0.115, 0.135), "large": (0.2, 0.23)}
"""Size word -> range of a thing's radius, as fractions of the scene's side."""

PLACES: dict[str, tuple[float, float]] = {
    "centre": (0.5, 0.5),
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.25),
    "bottom": (0.5, 0.75),
}
"""Where a thing's centre is, give or take a little: a lone thing in the middle, two on either side of it."""

RELATIONS: dict[str, str] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
"""Relation of one thing to another -> the same fact told from the other thing's side."""

_SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "disc", "dot"),
    "ring": ("ring", "ring", "hoop"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "cross", "plus sign"),
    "diamond": ("diamond", "diamond", "rhombus"),
}
SHAPES: tuple[str, ...] = tuple(_SHAPE_WORDS)
_ANY_SHAPE_WORDS = ("shape", "thing", "object", "figure")
_COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "purple": ("purple", "purple", "violet"),
    "grey": ("grey", "gray"),
}
_SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big", "huge"),
}
_RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "above", "over", "on top of"),
    "below": ("below", "below", "under", "beneath"),
}
_BESIDE_WORDS: dict[str, str] = {
    "left of": "on its left",
    "right of": "on its right",
    "above": "above it",
    "below": "below it",
}
_OPENINGS = ("a picture of ", "an image of ", "a drawing of ", "a photo of ", "this shows ", "there is ")
_PLACE_JITTER = 0.03
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Thing:
    """One coloured shape; `x`, `y` (its centre, from the top left) and `radius` are fractions of the side."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    turn_degrees: float
    shade: float
    """Factor on the colour's brightness, near 1: no two reds are quite the same."""


@dataclass(frozen=True)
class Scene:
    """One or two things on a plain background."""

    things: tuple[Thing, ...]
    background: str

    @property
    def relation(self) -> str | None:
        """Where the first thing stands from the second (a key of `RELATIONS`); None if it is alone."""
        if len(self.things) < 2:
            return None
        first, second = self.things
        return _relation(first, second)


def _relation(first: Thing, second: Thing) -> str:
    across, down = second.x - first.x, second.y - first.y
    if abs(across) >= abs(down):
        return "left of" if across > 0 else "right of"
    return "above" if down > 0 else "below"


@dataclass(frozen=True)
class Mention:
    """What a caption says of one thing; None where it does not say."""

    shape: str | None
    colour: str | None
    size: str | None

    def fits(self, thing: Thing) -> bool:
        """Whether `thing` is as the mention says."""
        said = ((self.shape, thing.shape), (self.colour, thing.colour), (self.size, thing.size))
        return all(word is None or word == fact for word, fact in said)


@dataclass(frozen=True)
class Description:
    """What a caption claims, whatever its words: its truth can be checked against any scene."""

    mentions: tuple[Mention, ...]
    relation: str | None
    """Where the first mentioned thing stands from the second."""
    background: str | None

    def holds(self, scene: Scene) -> bool:
        """Whether everything claimed is so in `scene`. A thing that is not mentioned makes no claim false."""
        if self.background is not None and self.background != scene.background:
            return False
        if len(self.mentions) == 1:
            return any(self.mentions[0].fits(thing) for thing in scene.things)
        if len(scene.things) < 2:
            return False
        first, second = scene.things
        return self._fits_pair(first, second) or self._fits_pair(second, first)

    def _fits_pair(self, first: Thing, second: Thing) -> bool:
        fits = self.mentions[0].fits(first) and self.mentions[1].fits(second)
        return fits and self.relation in (None, _relation(first, second))


# --- scenes ---------------------------------------------------------------------------------------------


def sample_scene(
    rng: random.Random,
    *,
    colours: Sequence[str] = tuple(COLOURS),
    backgrounds: Sequence[str] = tuple(BACKGROUNDS),
) -> Scene:
    """Make up a scene: one thing (a third of the time) or two, that differ in shape or colour.

    :param colours: the colours that things may have, at least two. A thing never has its background's colour.
    :param backgrounds: the backgrounds that the scene may have.
    """
    background = rng.choice(backgrounds)
    visible = [colour for colour in colours if colour != background]
    if rng.random() < 1 / 3:
        return Scene((_sample_thing(rng, visible, "centre"),), background)
    places = rng.choice((("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top")))
    first, second = _sample_thing(rng, visible, places[0]), _sample_thing(rng, visible, places[1])
    while (second.shape, second.colour) == (first.shape, first.colour):
        second = _sample_thing(rng, visible, places[1])
    return Scene((first, second), background)


def _sample_thing(rng: random.Random, colours: Sequence[str], place: str) -> Thing:
    size = rng.choice(list(RADII))
    x, y = PLACES[place]
    return Thing(
        shape=rng.choice(SHAPES),
        colour=rng.choice(colours),
        size=size,
        x=x + rng.uniform(-_PLACE_JITTER, _PLACE_JITTER),
        y=y + rng.uniform(-_PLACE_JITTER, _PLACE_JITTER),
        radius=rng.uniform(*RADII[size]),
        turn_degrees=rng.uniform(-12, 12),
        shade=rng.uniform(0.9, 1.08),
    )


def change_one_attribute(scene: Scene, rng: random.Random) -> Scene:
    """The same scene but for one attribute of one thing, the background, or which thing stands where."""
    kinds = ["shape", "colour", "size", "background"]
    if len(scene.things) == 2:
        kinds += ["places", "colours"]
    changed = scene
    while changed == scene or _colours_clash(changed):
        kind = rng.choice(kinds)
        if kind == "background":
            changed = replace(scene, background=rng.choice(list(BACKGROUNDS)))
        elif kind == "places":
            first, second = scene.things
            changed = replace(scene, things=(_at(first, second), _at(second, first)))
        elif kind == "colours":
            first, second = scene.things
            swapped = (replace(first, colour=second.colour), replace(second, colour=first.colour))
            changed = replace(scene, things=swapped)
        else:
            changed = _change_thing(scene, rng.randrange(len(scene.things)), kind, rng)
    return changed


def _change_thing(scene: Scene, index: int, kind: str, rng: random.Random) -> Scene:
    thing = scene.things[index]
    if kind == "shape":
        thing = replace(thing, shape=rng.choice(SHAPES))
    elif kind == "colour":
        thing = replace(thing, colour=rng.choice(list(COLOURS)))
    else:
        size = "small" if thing.size == "large" else "large"
        thing = replace(thing, size=size, radius=rng.uniform(*RADII[size]))
    return replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def _at(thing: Thing, place: Thing) -> Thing:
    return replace(thing, x=place.x, y=place.y)


def _colours_clash(scene: Scene) -> bool:
    """Whether a thing would vanish into the background, or the two things could not be told apart."""
    looks = {(thing.shape, thing.colour) for thing in scene.things}
    return len(looks) < len(scene.things) or any(thing.colour == scene.background for thing in scene.things)


# --- pictures -------------------------------------------------------------------------------------------


def draw(scene: Scene, size: int | tuple[int, int]) -> Image.Image:
    """Draw the scene, antialiased, as an RGB picture.

    :param size: side, or (width, height), in pixels. The scene fills the central square, so that a centre
        crop loses none of it; the background fills the rest.
    """
    width, height = (size, size) if isinstance(size, int) else size
    side = min(width, height) * _SUPERSAMPLING
    left, top = (width * _SUPERSAMPLING - side) / 2, (height * _SUPERSAMPLING - side) / 2
    background = BACKGROUNDS[scene.background]
    canvas = Image.new("RGB", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), background)
    pen = ImageDraw.Draw(canvas)
    for thing in scene.things:
        colour = _shaded(COLOURS[thing.colour], thing.shade)
        centre = (left + thing.x * side, top + thing.y * side)
        radius = thing.radius * side
        pen.polygon(_placed(_OUTLINES[thing.shape], centre, radius, thing.turn_degrees), fill=colour)
        if thing.shape == "ring":
            pen.polygon(_placed(_OUTLINES["circle"], centre, _RING_HOLE * radius, 0), fill=background)
    return canvas.reduce(_SUPERSAMPLING)


def _shaded(colour: RGB, shade: float) -> RGB:
    red, green, blue = (min(255, round(channel * shade)) for channel in colour)
    return red, green, blue


def _placed(
    outline: Sequence[tuple[float, float]], centre: tuple[float, float], radius: float, turn_degrees: float
) -> list[tuple[float, float]]:
    turn = math.radians(turn_degrees)
    cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in outline]


def _regular(corners: int, inner: float = 1.0) -> list[tuple[float, float]]:
    """Corners on the unit circle, the first at the top; every second one at distance `inner`."""
    points = []
    for corner in range(corners):
        angle = 2 * math.pi * corner / corners - math.pi / 2
        radius = inner if corner % 2 else 1.0
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return points


def _heart() -> list[tuple[float, float]]:
    """The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled into the unit circle."""
    points = []
    for step in range(48):
        t = 2 * math.pi * step / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 17, -(y + 2.5) / 17))
    return points


_CROSS_ARM = 0.3
_RING_HOLE = 0.55
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": _regular(48),
    "ring": _regular(48),
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": _regular(3),
    "star": _regular(10, inner=0.42),
    "heart": _heart(),
    "cross": [
        (-_CROSS_ARM, -1),
        (_CROSS_ARM, -1),
        (_CROSS_ARM, -_CROSS_ARM),
        (1, -_CROSS_ARM),
        (1, _CROSS_ARM),
        (_CROSS_ARM, _CROSS_ARM),
        (_CROSS_ARM, 1),
        (-_CROSS_ARM, 1),
        (-_CROSS_ARM, _CROSS_ARM),
        (-1, _CROSS_ARM),
        (-1, -_CROSS_ARM),
        (-_CROSS_ARM, -_CROSS_ARM),
    ],
    "diamond": [(0, -1), (0.7, 0), (0, 1), (-0.7, 0)],
}


# --- captions -------------------------------------------------------------------------------------------


def describe(scene: Scene, rng: random.Random) -> Description:
    """A true description of the scene that tells more or less of it, as people do."""
    things, relation = list(scene.things), scene.relation
    if relation is not None and rng.random() < 0.5:
        things, relation = things[::-1], RELATIONS[relation]
    if len(things) == 2 and rng.random() < 0.08:
        things, relation = things[:1], None
    tells_sizes = rng.random() < 0.5
    mentions = tuple(
        Mention(
            shape=thing.shape if rng.random() < 0.96 else None,
            colour=thing.colour if rng.random() < 0.94 else None,
            size=thing.size if tells_sizes else None,
        )
        for thing in things
    )
    return Description(
        mentions=mentions,
        relation=relation if rng.random() < 0.65 else None,
        background=scene.background if rng.random() < 0.5 else None,
    )


def wording(description: Description, rng: random.Random) -> str:
    """One of the many ways of saying `description` in words."""
    article = "" if rng.random() < 0.1 else "a"
    names = [_name(mention, article, rng) for mention in description.mentions]
    if len(names) == 1:
        said = names[0]
    elif description.relation is None:
        said = f"{names[0]} {rng.choice(('and', 'and', 'with', 'next to'))} {names[1]}"
    elif rng.random() < 0.15:
        said = f"{names[1]} with {names[0]} {_BESIDE_WORDS[description.relation]}"
    else:
        said = f"{names[0]} {rng.choice(_RELATION_WORDS[description.relation])} {names[1]}"
    return _framed(said, description.background, article, rng) + ("." if rng.random() < 0.1 else "")


def _name(mention: Mention, article: str, rng: random.Random) -> str:
    words = []
    if mention.size is not None:
        words.append(rng.choice(_SIZE_WORDS[mention.size]))
    if mention.colour is not None:
        words.append(rng.choice(_COLOUR_WORDS.get(mention.colour, (mention.colour,))))
    words.append(rng.choice(_ANY_SHAPE_WORDS if mention.shape is None else _SHAPE_WORDS[mention.shape]))
    return _with_article(" ".join(words), article)


def _with_article(words: str, article: str) -> str:
    if not article:
        return words
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _framed(said: str, background: str | None, article: str, rng: random.Random) -> str:
    opening = rng.choice(_OPENINGS) if article and rng.random() < 0.25 else ""
    if background is None:
        return opening + said
    ground = _with_article(f"{background} background", article)
    frame = rng.random()
    if frame < 0.7:
        return f"{opening}{said} {rng.choice(('on', 'on', 'against'))} {ground}"
    if frame < 0.85:
        return f"{said} on {background}"
    return f"on {ground}, {said}"


def describe_another(scene: Scene, rng: random.Random) -> Description:
    """A description of some other scene that does not hold for this one."""
    while (description := describe(sample_scene(rng), rng)).holds(scene):
        pass
    return description


def describe_almost(scene: Scene, rng: random.Random) -> Description:
    """A description that would hold for this scene if one attribute were different."""
    while (description := describe(change_one_attribute(scene, rng), rng)).holds(scene):
        pass
    return description


def caption(scene: Scene, rng: random.Random) -> str:
    """A caption that is true of the scene."""
    return wording(describe(scene, rng), rng)


def mismatched_caption(scene: Scene, rng: random.Random) -> str:
    """A true caption of some other scene that does not hold for this one."""
    return wording(describe_another(scene, rng), rng)


def nearly_right_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that is true of this scene but for one changed attribute: a hard negative."""
    return wording(describe_almost(scene, rng), rng)
