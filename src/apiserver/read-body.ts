/** Request bodies: bounded in size and depth, JSON or YAML, never with a member that could reach a prototype. */
import type { IncomingMessage } from 'node:http';
import { ApiError } from '../api/errors.ts';
import { badRequest, tooLarge, unsupportedMediaType } from '../api/statuses.ts';
import { messageOf } from '../base/errors.ts';

/** kube-apiserver's own limit. */
export const MAX_BODY_BYTES = 3 * 1024 * 1024;
/** Levels of nesting; real objects stay below 30. */
const MAX_DEPTH = 100;

export async function readBody(request: IncomingMessage, limit = MAX_BODY_BYTES): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > limit) throw tooLarge(limit);
  if (request.headers['content-encoding'] && request.headers['content-encoding'] !== 'identity')
    throw unsupportedMediaType('application/json without content encoding');
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw tooLarge(limit);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export const mediaTypeOf = (request: IncomingMessage): string =>
  (request.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';

/** The value of a JSON or YAML text. Throws a 400. */
export async function parseBody(body: Buffer, mediaType: string): Promise<unknown> {
  const text = body.toString('utf8');
  let value: unknown;
  try {
    if (mediaType === 'application/yaml' || mediaType === 'application/apply-patch+yaml') {
      // The library is loaded only by clients that send YAML.
      const { parse } = await import('yaml');
      value = text.trimStart().startsWith('{')
        ? parseJsonOrYaml(text, parse)
        : parse(text, { maxAliasCount: 0 });
    } else value = JSON.parse(text);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw badRequest(`error decoding the body: ${messageOf(error).slice(0, 200)}`);
  }
  checkShape(value);
  return value;
}

function parseJsonOrYaml(
  text: string,
  parseYaml: (text: string, options: { maxAliasCount: number }) => unknown,
): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return parseYaml(text, { maxAliasCount: 0 });
  }
}

/** Walks without recursion, so that no nesting can exhaust the stack of what comes after. */
function checkShape(value: unknown): void {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) throw badRequest(`the object is nested more than ${MAX_DEPTH} levels deep`);
    const next: unknown[] = [];
    for (const item of level) {
      if (typeof item !== 'object' || item === null) continue;
      if (!Array.isArray(item) && Object.hasOwn(item, '__proto__'))
        throw badRequest('a member named __proto__ is not allowed');
      for (const child of Object.values(item))
        if (typeof child === 'object' && child !== null) next.push(child);
    }
    level = next;
  }
}
