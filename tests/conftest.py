"""What all tests share: no property test is judged by how busy the machine is."""

from hypothesis import settings

settings.register_profile("deltawheel", settings(), deadline=None)
settings.load_profile("deltawheel")
