// Runs two model servers and the gateway, and proves that a client of another implementation of gRPC
// gets along with it. Needs Go for building them.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

import * as grpc from "@grpc/grpc-js";

import { connect, infer, metadata, request, species } from "./inference.js";

const root = path.resolve(import.meta.dirname, "../..");
const dir = mkdtempSync(path.join(tmpdir(), "sluice-grpc-js-"));
const children = [];
const adelie = [39.1, 18.7, 181, 3750];
const gentoo = [50.0, 16.3, 230, 5700];
let client;
let gateway;

/** start runs a program until the tests are over; it resolves to what its output says at the pattern. */
function start(program, args, pattern) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  return new Promise((resolve, reject) => {
    let output = "";
    const look = (chunk) => {
      output += chunk;
      const match = output.match(pattern);
      if (match) resolve(match[1]);
    };
    child.stdout.on("data", look);
    child.stderr.on("data", look);
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`${program} ended: ${output}`)));
  });
}

function stop(child) {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.on("exit", resolve);
    child.kill("SIGTERM");
  });
}

before(async () => {
  execFileSync("go", ["build", "-o", dir + path.sep, "./cmd/sluice", "./sample/serve"], { cwd: root, stdio: "inherit" });
  const servers = await Promise.all(
    ["v1", "v2"].map((v) => start(path.join(dir, "serve"), ["-version", v, "-listen", "127.0.0.1:0"], /on (\S+:\d+)\n/)),
  );
  const routes = path.join(dir, "routes.yaml");
  writeFileSync(
    routes,
    `routes:
  - model: penguins
    versions:
      - {name: v1, endpoints: ["${servers[0]}"]}
      - {name: v2, endpoints: ["${servers[1]}"]}
    weights: {v1: 50, v2: 50}
`,
  );
  const args = ["serve", "--routes", routes, "--listen", "127.0.0.1:0", "--admin", "off", "--drain-delay", "0s"];
  gateway = await start(path.join(dir, "sluice"), args, /listen=(\S+)/);
  client = connect(gateway);
});

after(async () => {
  client?.close();
  await Promise.all(children.map(stop));
  rmSync(dir, { recursive: true });
});

test("unary predictions of both versions", async () => {
  for (const version of ["v1", "v2"]) {
    const { answer, header } = await infer(client, request("penguins", [adelie, gentoo]), { "sluice-version": version });
    assert.deepEqual(species(answer), ["Adelie", "Gentoo"]);
    assert.equal(answer.model_version, version);
    assert.deepEqual(header.get("sluice-version"), [version]);
    assert.deepEqual(header.get("sluice-attempts"), ["1"]);
    assert.equal(header.get("x-request-id").length, 1);
  }
});

test("many at once are split", async () => {
  const answers = await Promise.all(Array.from({ length: 200 }, () => infer(client, request("penguins", [gentoo]))));
  const versions = new Set(answers.map(({ answer }) => answer.model_version));
  assert.deepEqual([...versions].sort(), ["v1", "v2"]);
});

test("large and compressed requests", async () => {
  const gzip = connect(gateway, { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip });
  try {
    const rows = Array.from({ length: 20000 }, () => gentoo);
    for (const c of [client, gzip]) {
      const { answer } = await infer(c, request("penguins", rows), {}, 30);
      assert.equal(species(answer).length, rows.length);
    }
  } finally {
    gzip.close();
  }
});

test("a stream of predictions", async () => {
  const stream = client.ModelStreamInfer(metadata({}), { deadline: Date.now() + 10_000 });
  const got = [];
  const ended = new Promise((resolve, reject) => {
    stream.on("data", (m) => got.push(m));
    stream.on("error", reject);
    stream.on("end", resolve);
  });
  for (let i = 0; i < 10; i++) stream.write({ ...request("penguins", [i % 2 ? gentoo : adelie]), id: String(i) });
  stream.end();
  await ended;
  assert.deepEqual(got.map((m) => m.infer_response.id), Array.from({ length: 10 }, (_, i) => String(i)));
  assert.equal(new Set(got.map((m) => m.infer_response.model_version)).size, 1);
});

test("an unknown model is NOT_FOUND, with details", async () => {
  await assert.rejects(infer(client, request("fraud", [adelie]), { "x-request-id": "order-17" }), (err) => {
    assert.equal(err.code, grpc.status.NOT_FOUND);
    assert.match(err.details, /"fraud"/);
    assert.match(err.metadata.get("grpc-status-details-bin")[0].toString("latin1"), /MODEL_NOT_FOUND/);
    assert.deepEqual(err.metadata.get("x-request-id"), ["order-17"]);
    return true;
  });
});

test("the server's own errors pass", async () => {
  await assert.rejects(infer(client, request("penguins", [])), { code: grpc.status.INVALID_ARGUMENT });
});

test("the gateway answers for itself", async () => {
  const ready = await new Promise((resolve, reject) => client.ServerReady({}, (err, r) => (err ? reject(err) : resolve(r))));
  assert.equal(ready.ready, true);
});
