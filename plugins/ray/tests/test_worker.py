"""What a worker keeps loaded; needs no Ray."""

from __future__ import annotations

from pathlib import Path

from streamgan import api
from streamgan_ray.worker import Models


class Session(api.Session):
    """Notes that it was freed."""

    freed = False

    def run(self, images: api.Images, inputs: object = None) -> api.Images:
        return images

    def close(self) -> None:
        self.freed = True


def test_a_model_stays_while_it_is_used_and_a_few_stay_after(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.touch()
    models, loaded = Models(), list[Session]()

    def get(key: int) -> api.Session:
        def load() -> Session:
            loaded.append(Session())
            return loaded[-1]

        return models.get(path, (key,), load)

    used = get(0)
    for key in range(1, 11):  # as a measurement does
        get(key).close()
    assert [each.freed for each in loaded] == [False] + 6 * [True] + 4 * [False]
    used.close()
    assert get(0) is used and len(loaded) == 11, "the one that was closed last is among those that stay"
    models.clear()
    assert all(each.freed for each in loaded)
    used.close()
    get(0)
    assert len(loaded) == 12
