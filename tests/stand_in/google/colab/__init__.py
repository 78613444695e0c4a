"""Stands in for the package that Colab's runtimes carry: enough for `on_colab()` and for what notebooks may call.

The folder above has no __init__.py, as Colab's has none: `google` is shared with protobuf, which TensorFlow needs.
"""
