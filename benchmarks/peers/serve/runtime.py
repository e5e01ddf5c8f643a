"""MLServer's runtime for an ONNX model: the least that scores V2 tensors with onnxruntime."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse
from mlserver.utils import get_model_uri


class Onnx(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = await get_model_uri(self.settings)
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.answers = [port.name for port in self.session.get_outputs()]
        return True

    async def predict(self, payload):
        feed = {port.name: NumpyCodec.decode_input(port) for port in payload.inputs}
        found = zip(self.answers, self.session.run(self.answers, feed), strict=True)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                StringCodec.encode_output(name, value.tolist())
                if value.dtype == object
                else NumpyCodec.encode_output(name, value)
                for name, value in found
            ],
        )
