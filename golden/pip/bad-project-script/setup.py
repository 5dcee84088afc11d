from setuptools import Extension, setup

setup(ext_modules=[Extension("app.fast", ["fast.c"])])
