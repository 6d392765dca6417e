// Client of the Open Inference Protocol for the sample model: penguins by their measurements.

import path from "node:path";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

const proto = path.resolve(import.meta.dirname, "../../proto/inference/inference.proto");
const { inference } = grpc.loadPackageDefinition(loader.loadSync(proto, { keepCase: true, longs: String, enums: String }));

/** connect returns a client for a plaintext address. */
export function connect(address, options) {
  return new inference.GRPCInferenceService(address, grpc.credentials.createInsecure(), options);
}

/** metadata makes gRPC metadata of a plain object. */
export function metadata(fields) {
  const md = new grpc.Metadata();
  for (const [key, value] of Object.entries(fields)) md.set(key, value);
  return md;
}

/** request asks for the species of penguins: rows of bill length, bill depth, flipper length (mm) and mass (g). */
export function request(model, rows) {
  return {
    model_name: model,
    inputs: [{ name: "measurements", datatype: "FP32", shape: [rows.length, 4], contents: { fp32_contents: rows.flat() } }],
    outputs: [{ name: "species" }],
  };
}

/** species reads the answer to a request. */
export function species(answer) {
  return answer.outputs.find((o) => o.name === "species").contents.bytes_contents.map((b) => b.toString());
}

/**
 * infer makes one unary call. It resolves to the answer and the header metadata, and rejects with
 * grpc-js's ServiceError.
 */
export function infer(client, req, fields = {}, seconds = 10) {
  return new Promise((resolve, reject) => {
    let header;
    const call = client.ModelInfer(req, metadata(fields), { deadline: Date.now() + seconds * 1000 }, (err, answer) =>
      err ? reject(err) : resolve({ answer, header }),
    );
    call.on("metadata", (md) => (header = md));
  });
}
