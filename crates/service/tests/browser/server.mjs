// A server of the real binary in a folder of its own, and data to bring to it.

import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const EXAMPLES = new URL("../../../../examples/", import.meta.url).pathname;
const NETWORK = new URL("../../../finetuner/tests/golden/vision/resnet18/", import.meta.url).pathname;

/** Rows of the example that are learnt from: few enough for a minute in an unoptimised build. */
const ROWS = 260;

/** Pictures in the zip. */
const PICTURES = 60;

/** A server with these settings; `listen` is a free address unless something has to know it before. */
export async function start(binary, settings = {}, listen = "127.0.0.1:0") {
  const folder = await mkdtemp(join(tmpdir(), "finetuner-page-"));
  await tower(join(folder, "home/.cache/huggingface/hub"));
  const environment = { PATH: process.env.PATH, HOME: join(folder, "home"), HF_HUB_OFFLINE: "1", ...settings };
  const child = spawn(binary, ["serve", "--data", join(folder, "data"), "--listen", listen], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (text) => {
    log += text;
  });
  const found = {};
  for await (const line of createInterface({ input: child.stdout })) {
    found.address ??= line.match(/^Finetuner listens on (.*)/)?.[1];
    found.key ??= line.match(/^First key, shown this once: (.*)/)?.[1];
    if (found.address && found.key) break;
  }
  if (!found.key) throw new Error(`the server did not start:\n${log}`);
  child.stdout.resume();
  const stop = async () => {
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await gone;
    await rm(folder, { recursive: true, force: true });
  };
  return { ...found, folder, stop, log: () => log };
}

/** An address of this machine that nobody listens at. */
export async function free() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

/** Questions and answers of the packages example, one row twice. */
export async function table(folder) {
  const lines = (await readFile(join(EXAMPLES, "packages/train.csv"), "utf8")).split("\n").slice(0, ROWS + 1);
  const path = join(folder, "packages.csv");
  await writeFile(path, [...lines, lines[3], ""].join("\n"));
  return path;
}

/** A zip of emoji and a table that names them. */
export async function pictures(folder) {
  const rows = (await readFile(join(EXAMPLES, "emoji/train.csv"), "utf8")).split("\n").slice(1);
  const chosen = rows.filter((_, place) => place % 20 === 0).slice(0, PICTURES);
  const names = [...new Set(chosen.map((row) => row.split(",").at(-1)))];
  const entries = [["emoji/train.csv", Buffer.from(`text,image\n${chosen.join("\n")}\n`)]];
  for (const name of names) entries.push([`emoji/${name}`, await readFile(join(EXAMPLES, "emoji", name))]);
  const path = join(folder, "emoji.zip");
  await writeFile(path, zip(entries));
  return path;
}

/** A small network for pictures, as if it had been downloaded. */
async function tower(cache) {
  const commit = "0123456789abcdef0123456789abcdef01234567";
  const model = join(cache, "models--test--tower");
  const folder = join(model, "snapshots", commit);
  await mkdir(join(model, "refs"), { recursive: true });
  await mkdir(folder, { recursive: true });
  for (const file of ["config.json", "model.safetensors"]) await cp(join(NETWORK, file), join(folder, file));
  const processor = { image_processor_type: "ViTImageProcessor", do_resize: true, size: { height: 32, width: 32 } };
  await writeFile(join(folder, "preprocessor_config.json"), JSON.stringify(processor));
  await writeFile(join(model, "refs/main"), commit);
}

/** A zip of entries that are stored as they are. */
function zip(entries) {
  const [parts, index] = [[], []];
  let offset = 0;
  for (const [name, body] of entries) {
    const path = Buffer.from(name);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt32LE(crc(body), 10);
    common.writeUInt32LE(body.length, 14);
    common.writeUInt32LE(body.length, 18);
    common.writeUInt16LE(path.length, 22);
    const record = Buffer.alloc(14);
    record.writeUInt32LE(offset, 10);
    parts.push(Buffer.from("PK\x03\x04"), common, path, body);
    index.push(Buffer.from("PK\x01\x02\x14\x00"), common, record, path);
    offset += 30 + path.length + body.length;
  }
  const directory = Buffer.concat(index);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06");
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, directory, end]);
}

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return (value ^ 0xffffffff) >>> 0;
}
