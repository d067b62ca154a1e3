"""Names of the networks, without the libraries that build them; the modules beside this one say what each is."""

GPT2_SIZES = ("nano", "mini", "gpt2", "gpt2-medium", "gpt2-large")
BERT_SIZES = ("nano", "mini", "bert-base", "bert-large")
SMALL_CLASSIFIERS = ("resnet10-digits", "resnet10-small", "resnet18-cifar", "resnet34-cifar")
TIME_CLASSIFIERS = ("cnn-digits", "cnn-mnist", "resnet18", "resnet34", "unet-encoder")
EDM_NETWORKS = ("edm-cifar", "edm-ddpmpp", "edm-small", "edm-mnist", "edm-digits")
