"""One module for each data set `hf_noise/<name>`, found by its file name: `docs_noisy.py` is `hf_noise/docs-noisy`.

One builder class a module, because `datasets` names cache folders after the module.
"""
