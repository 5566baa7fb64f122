"""A service that says what is on a picture: the best network as ONNX, behind HTTP, with no torch where it is served.

python examples/onnx_service.py photos/ 10min

With nothing said it takes half a minute on handwritten digits. The search and the export run here; the service is a
process of its own, which has NumPy, Pillow and ONNX Runtime alone: `onnx_loader.py` and `network.onnx` are all that it
needs on another machine. It is asked once for each of three pictures, and ended.
"""

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from small_data import digits_folder

from autobackbone import select_backbone
from autobackbone.exporting import onnx_loader

SERVICE = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

from onnx_loader import OnnxNetwork

network = OnnxNetwork("network.onnx")


class Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            label, probabilities = network(content)
            answer, code = {"label": label, "probabilities": [round(float(one), 4) for one in probabilities]}, 200
        except Exception as error:
            answer, code = {"error": str(error)}, 400
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Answers)
print(server.server_port, flush=True)
server.serve_forever()
"""


def main(folder: str = "", budget: str = "20s") -> None:
    folder = folder or digits_folder()
    result = select_backbone(folder, budget)
    home = Path("onnx-service")
    home.mkdir(exist_ok=True)
    print(result.to_onnx(home / "network.onnx"))
    shutil.copy(onnx_loader.__file__, home / "onnx_loader.py")
    (home / "service.py").write_text(SERVICE, encoding="utf-8")

    service = subprocess.Popen([sys.executable, "service.py"], cwd=home, stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        pictures = [
            path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}
        ]
        for picture in pictures[:: max(1, len(pictures) // 3)][:3]:
            request = urllib.request.Request(f"http://127.0.0.1:{port}", data=picture.read_bytes())
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  of this machine
                said = json.load(answer)
            print(picture, "is", said["label"], "and the run says", result.predict([picture])[0])
    finally:
        service.terminate()
        service.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
