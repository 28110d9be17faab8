/**
 * The conversation between plugin and agent, bytes ↔ values. `cni/weft-cni.c` says it in C:
 *
 *   agent:  'A' as soon as it accepts
 *   plugin: "WFT1" | u32 length of environment | u32 length of stdin | CNI_* variables, each ended by a zero byte | stdin
 *   agent:  u32 exit code | u32 length | bytes for stdout
 *
 * Integers are little-endian. A file in the spool holds what the plugin would have sent.
 */
import { CNI_CODE, CniError } from './errors.ts';
import type { CniAnswer, CniInvocation } from './types.ts';

const MAGIC = 0x31544657; // "WFT1"
export const FRAME_HEADER = 12;
export const MAX_STDIN = 1 << 20;
export const MAX_ENVIRONMENT = 1 << 18;
export const ACCEPTED = Buffer.from('A');

const malformed = (what: string): CniError => new CniError(CNI_CODE.undecodable, `malformed frame: ${what}`);

/** Bytes of the whole frame, undefined while the header is not complete. @throws CniError 6 */
export function frameLength(bytes: Buffer): number | undefined {
  if (bytes.length < FRAME_HEADER) return undefined;
  const environment = bytes.readUInt32LE(4);
  const stdin = bytes.readUInt32LE(8);
  if (bytes.readUInt32LE(0) !== MAGIC) throw malformed('it does not begin with WFT1');
  if (environment > MAX_ENVIRONMENT) throw malformed(`environment of ${environment} bytes`);
  if (stdin > MAX_STDIN) throw malformed(`network configuration of ${stdin} bytes`);
  return FRAME_HEADER + environment + stdin;
}

/** @throws CniError 6 unless `bytes` is exactly one frame */
export function decodeRequest(bytes: Buffer): CniInvocation {
  if (frameLength(bytes) !== bytes.length) throw malformed(`${bytes.length} bytes`);
  const split = FRAME_HEADER + bytes.readUInt32LE(4);
  const env: Record<string, string> = Object.create(null);
  for (const entry of bytes.toString('utf8', FRAME_HEADER, split).split('\0')) {
    const at = entry.indexOf('=');
    if (at > 0) env[entry.slice(0, at)] = entry.slice(at + 1);
  }
  return { env, stdin: bytes.toString('utf8', split) };
}

/** What the plugin sends; for tests and for callers that need no process. */
export function encodeRequest({ env, stdin }: CniInvocation): Buffer {
  const environment = Buffer.from(
    Object.entries(env)
      .map(([name, value]) => `${name}=${value}\0`)
      .join(''),
  );
  const config = Buffer.from(stdin);
  const head = Buffer.alloc(FRAME_HEADER);
  head.writeUInt32LE(MAGIC, 0);
  head.writeUInt32LE(environment.length, 4);
  head.writeUInt32LE(config.length, 8);
  return Buffer.concat([head, environment, config]);
}

export function encodeAnswer({ exitCode, stdout }: CniAnswer): Buffer {
  const body = Buffer.from(stdout);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(exitCode, 0);
  head.writeUInt32LE(body.length, 4);
  return Buffer.concat([head, body]);
}
