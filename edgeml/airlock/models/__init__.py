"""What is said of ONNX models: every place where rows can lie, what they compute from private rows, and how they are
written anew. `examine` is the face.
"""
