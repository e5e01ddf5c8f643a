from tests.gitops.conftest import Story


def test_good(story: Story) -> None:
    story.release("staging", 3, "v1.0.0")
    import time
    t = time.time()
    d = story.gate("staging", "v1.0.0")
    print(time.time() - t, len(story.hub.requests), story.hub.requests)
    print(d.json())
    assert d.allowed
