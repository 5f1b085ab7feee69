"""The smallest suite."""

SUITE = """
name = "mini"
data = "scenes:train=60,test=20"
[encoder]
image_size = 64
width = 0.1
[[pretrain]]
method = "random"
[[evaluate]]
evaluation = "knn"
k = [1, 3]
"""
