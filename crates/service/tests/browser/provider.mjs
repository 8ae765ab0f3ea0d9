// An OpenID Connect provider that lets everybody in at once, as whoever `person` says.

import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { createServer } from "node:http";

const base64 = (value) => Buffer.from(typeof value === "object" && !Buffer.isBuffer(value) ? JSON.stringify(value) : value).toString("base64url");

export async function provide(person) {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const asked = new Map();
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, address);
    const answer = (value) => response.setHeader("content-type", "application/json").end(JSON.stringify(value));
    if (url.pathname === "/.well-known/openid-configuration") {
      return answer({
        issuer: address, authorization_endpoint: `${address}/authorize`, token_endpoint: `${address}/token`, jwks_uri: `${address}/keys`,
        response_types_supported: ["code"], subject_types_supported: ["public"], id_token_signing_alg_values_supported: ["ES256"],
      });
    }
    if (url.pathname === "/keys") return answer({ keys: [{ ...publicKey.export({ format: "jwk" }), use: "sig", alg: "ES256", kid: "one" }] });
    if (url.pathname === "/authorize") {
      const code = `code-${asked.size}`;
      asked.set(code, url.searchParams);
      const back = new URL(url.searchParams.get("redirect_uri"));
      back.searchParams.set("code", code);
      back.searchParams.set("state", url.searchParams.get("state"));
      return response.writeHead(302, { location: back.href }).end();
    }
    let body = "";
    for await (const part of request) body += part;
    const form = new URLSearchParams(body);
    const question = asked.get(form.get("code"));
    const proven = question && createHash("sha256").update(form.get("code_verifier")).digest("base64url") === question.get("code_challenge");
    if (url.pathname !== "/token" || !proven) return response.writeHead(400).end();
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: address, aud: question.get("client_id"), iat: now, exp: now + 300, nonce: question.get("nonce"), ...person() };
    const signed = `${base64({ alg: "ES256", kid: "one" })}.${base64(claims)}`;
    const signature = sign("sha256", Buffer.from(signed), { key: privateKey, dsaEncoding: "ieee-p1363" });
    return answer({ access_token: "unused", token_type: "Bearer", id_token: `${signed}.${base64(signature)}` });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = `http://127.0.0.1:${server.address().port}`;
  return { address, stop: () => server.close() };
}
