// Asks a running gateway for two predictions, for instance that of `make demo`:
//
//	npm ci && npm run predict -- 127.0.0.1:8001

import { connect, infer, request, species } from "./inference.js";

const address = process.argv[2] ?? "127.0.0.1:8001";
const client = connect(address);
try {
  const penguins = [
    [39.1, 18.7, 181, 3750],
    [50.0, 16.3, 230, 5700],
  ];
  const { answer, header } = await infer(client, request("penguins", penguins));
  console.log(`version ${header.get("sluice-version")[0]} says: ${species(answer).join(", ")}`);
} catch (err) {
  console.error(`${address}: ${err.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
