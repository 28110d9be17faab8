/** The query parameters of list and watch, and the resourceVersion semantics behind them. */
import type { KindDeclaration } from '../api/kind-declaration.ts';
import { parseFieldSelector, parseLabelSelector } from '../api/selectors.ts';
import { badRequest, expired, futureRevision } from '../api/statuses.ts';
import type { KubeObject } from '../api/types.ts';
import { isWeftError } from '../base/errors.ts';
import type { Store, StoreEntry } from '../store/store.ts';
import { decodeObject, prefixOf } from './object-codec.ts';

export interface ListQuery {
  matches?: (object: KubeObject) => boolean;
  /** 0: no limit. */
  limit: number;
  continue?: { revision: number; after: string };
  /** Absent: the newest. */
  revision?: number;
  exact: boolean;
}

export interface ListPage {
  entries: StoreEntry[];
  meta: { resourceVersion: string; continue?: string; remainingItemCount?: number };
}

export function parseListQuery(query: URLSearchParams, kind: KindDeclaration): ListQuery {
  const limit = parseCount(query, 'limit') ?? 0;
  const token = query.get('continue');
  const version = query.get('resourceVersion') ?? '';
  const match = query.get('resourceVersionMatch') ?? '';
  if (match && match !== 'Exact' && match !== 'NotOlderThan')
    throw badRequest(
      `resourceVersionMatch: Unsupported value: "${match}": supported values: "Exact", "NotOlderThan"`,
    );
  if (match && !version && query.get('watch') !== 'true' && query.get('watch') !== '1')
    throw badRequest(
      'resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided',
    );
  const revision = parseRevision(version);
  if (match === 'Exact' && revision === undefined)
    throw badRequest(
      'resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for resourceVersion "0"',
    );
  const matches = parseSelectors(query, kind);
  return {
    limit,
    exact: match === 'Exact',
    ...(matches && { matches }),
    ...(revision !== undefined && { revision }),
    ...(token && { continue: decodeToken(token, kind) }),
  };
}

export function parseSelectors(
  query: URLSearchParams,
  kind: KindDeclaration,
): ((object: KubeObject) => boolean) | undefined {
  const labels = parseLabelSelector(query.get('labelSelector') ?? '');
  const fields = parseFieldSelector(query.get('fieldSelector') ?? '', kind);
  if (!labels && !fields) return undefined;
  return (object) => (!labels || labels(object.metadata.labels ?? {})) && (!fields || fields.matches(object));
}

/** '' and '0' are "whatever is there": undefined. */
export function parseRevision(text: string): number | undefined {
  if (text === '' || text === '0') return undefined;
  if (!/^\d{1,15}$/.test(text))
    throw badRequest(
      `resourceVersion: Invalid value: ${JSON.stringify(text.slice(0, 50))}: must be an integer`,
    );
  return Number(text);
}

export function parseCount(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  if (!/^\d{1,9}$/.test(text))
    throw badRequest(`${name}: Invalid value: ${JSON.stringify(text.slice(0, 50))}: must be a number`);
  return Number(text);
}

export const isTrue = (value: string | null): boolean => value === 'true' || value === '1';

/** One page of a kind, or of one namespace of it. */
export async function listPage(
  store: Store,
  kind: KindDeclaration,
  namespace: string | undefined,
  query: ListQuery,
): Promise<ListPage> {
  const prefix = prefixOf(kind, namespace);
  if (query.revision !== undefined && query.revision > store.revision && !query.continue)
    throw futureRevision(query.revision, store.revision);
  // A snapshot at the first page's revision, or the newest state; "not older than" is met by the newest.
  let revision = query.continue?.revision ?? (query.exact ? query.revision : undefined);
  let after = query.continue?.after;
  const found: StoreEntry[] = [];
  let remaining = 0;
  do {
    const page = await readSnapshot(store, prefix, revision, after, query.limit);
    revision = page.revision;
    remaining = page.remaining;
    after = page.entries.at(-1)?.key;
    for (const entry of page.entries) {
      if (query.matches && !query.matches(decodeObject(entry))) continue;
      found.push(entry);
      if (query.limit === 0 || found.length < query.limit) continue;
      const skipped = page.entries.length - 1 - page.entries.indexOf(entry);
      remaining += skipped;
      after = entry.key;
      break;
    }
  } while (remaining > 0 && query.limit > 0 && found.length < query.limit);
  return {
    entries: found,
    meta: {
      resourceVersion: String(revision),
      ...(remaining > 0 && after !== undefined && { continue: encodeToken(revision, after) }),
      // Unknown with a selector, as the rest has not been looked at.
      ...(remaining > 0 && !query.matches && { remainingItemCount: remaining }),
    },
  };
}

async function readSnapshot(
  store: Store,
  prefix: string,
  revision: number | undefined,
  after: string | undefined,
  limit: number,
): Promise<{ revision: number; entries: StoreEntry[]; remaining: number }> {
  try {
    return await store.list(prefix, {
      limit,
      ...(revision !== undefined && { revision }),
      ...(after !== undefined && { after }),
    });
  } catch (error) {
    if (isWeftError(error, 'WEFT_STORE_COMPACTED'))
      throw expired(
        after === undefined
          ? `The resourceVersion for the provided list is too old: ${revision} (${store.compactedRevision})`
          : 'The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.',
      );
    if (isWeftError(error, 'WEFT_STORE_FUTURE')) throw futureRevision(revision ?? 0, store.revision);
    throw error;
  }
}

const encodeToken = (revision: number, after: string): string =>
  Buffer.from(JSON.stringify({ v: 'weft/v1', rv: revision, after })).toString('base64url');

function decodeToken(token: string, kind: KindDeclaration): { revision: number; after: string } {
  try {
    const value: unknown = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'));
    const { v, rv, after } = value as { v?: unknown; rv?: unknown; after?: unknown };
    if (v === 'weft/v1' && Number.isSafeInteger(rv) && (rv as number) > 0 && typeof after === 'string')
      if (after.startsWith(prefixOf(kind)) && after.length < 1024) return { revision: rv as number, after };
  } catch {
    // Not ours: told below.
  }
  throw badRequest(
    'continue key is not valid: it must be the one that an earlier page of the same list gave',
  );
}
