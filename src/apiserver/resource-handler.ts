/** The requests on kinds: from HTTP's words to the registry's and back. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { decode } from '../api/decode.ts';
import type { KindDeclaration } from '../api/kind-declaration.ts';
import { namespaceKind, UNDELETABLE_NAMESPACES } from '../api/kinds/namespace.ts';
import { applyJsonPatch } from '../api/patch/json-patch.ts';
import { applyMergePatch } from '../api/patch/merge-patch.ts';
import { applyStrategicMergePatch } from '../api/patch/strategic-merge-patch.ts';
import { DELETE_OPTIONS_PROTO, decodeProtobuf, type ProtoMessage } from '../api/protobuf.ts';
import { deleteOptions } from '../api/schemas/meta.ts';
import { bindingSchema } from '../api/schemas/pod.ts';
import {
  badRequest,
  conflict,
  deleted,
  expired,
  forbiddenRequest,
  invalidObject,
  notFound,
  tooManyRequests,
  unsupportedMediaType,
} from '../api/statuses.ts';
import type { KubeObject, Namespace, Pod } from '../api/types.ts';
import { isWeftError } from '../base/errors.ts';
import type { Store } from '../store/store.ts';
import { authorize, type Identity } from './identity.ts';
import { isTrue, listPage, parseCount, parseListQuery, parseRevision, parseSelectors } from './list-query.ts';
import { prefixOf } from './object-codec.ts';
import { type Input, parseFieldValidation, readObject } from './object-input.ts';
import { mediaTypeOf, parseBody, readBody } from './read-body.ts';
import { type DeleteWish, Registry, refuseTerminating } from './registry.ts';
import { entryText, listText, negotiate, objectTextAs, type Representation } from './representation.ts';
import type { ResourceRequest } from './request-info.ts';
import { WatchStream } from './watch-stream.ts';

const JSON_TYPES = new Set([
  '',
  'application/json',
  'application/yaml',
  'application/octet-stream',
  'text/plain',
]);
const PATCH_TYPES: Record<string, (object: unknown, patch: unknown, kind: KindDeclaration) => unknown> = {
  'application/json-patch+json': (object, patch) => applyJsonPatch(object, patch),
  'application/merge-patch+json': (object, patch) => applyMergePatch(object, patch),
  'application/strategic-merge-patch+json': (object, patch, kind) =>
    applyStrategicMergePatch(object, patch, kind.schema),
};
const PROTOBUF = 'application/vnd.kubernetes.protobuf';
const MAX_WATCH_SECONDS = 3600;

export interface ResourceHandlerOptions {
  store: Store;
  kinds: readonly KindDeclaration[];
  /** Most watches at one time; further ones are refused with 429. */
  maxWatches: number;
}

interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  query: URLSearchParams;
  identity: Identity;
}

export class ResourceHandler {
  readonly #store: Store;
  readonly #registries = new Map<KindDeclaration, Registry>();
  readonly #watches = new Set<WatchStream>();
  readonly #maxWatches: number;

  constructor(options: ResourceHandlerOptions) {
    this.#store = options.store;
    this.#maxWatches = options.maxWatches;
    for (const kind of options.kinds) this.#registries.set(kind, new Registry(kind, options.store));
  }

  get watchCount(): number {
    return this.#watches.size;
  }

  registry(kind: KindDeclaration): Registry {
    const found = this.#registries.get(kind);
    if (!found) throw notFound(kind, '');
    return found;
  }

  /** Ends every watch. */
  close(): void {
    for (const watch of [...this.#watches]) watch.end();
  }

  async handle(target: ResourceRequest, exchange: Exchange): Promise<void> {
    const { request, query } = exchange;
    const form = negotiate(request.headers.accept, query.get('includeObject'));
    switch (target.verb) {
      case 'get':
        return this.#get(target, exchange, form);
      case 'list':
        return this.#list(target, exchange, form);
      case 'watch':
        return this.#watch(target, exchange, form);
      case 'create':
        return target.subresource === 'binding'
          ? this.#bind(target, exchange)
          : this.#create(target, exchange, form);
      case 'update':
      case 'patch':
        return this.#change(target, exchange, form);
      case 'delete':
        return this.#delete(target, exchange, form);
      case 'deletecollection':
        return this.#deleteCollection(target, exchange, form);
    }
  }

  async #get(target: ResourceRequest, exchange: Exchange, form: Representation): Promise<void> {
    const minimum = parseRevision(exchange.query.get('resourceVersion') ?? '');
    const entry = await this.registry(target.kind).entry(target.namespace, target.name as string);
    if (minimum !== undefined && minimum > this.#store.revision)
      throw conflict(target.kind, target.name as string, 'Too large resource version');
    sendText(exchange.response, 200, entryText(target.kind, form, entry, entry.revision, Date.now()));
  }

  async #list(target: ResourceRequest, exchange: Exchange, form: Representation): Promise<void> {
    const { kind, namespace } = target;
    const page = await listPage(this.#store, kind, namespace, parseListQuery(exchange.query, kind));
    sendText(exchange.response, 200, listText(kind, form, page.meta, page.entries, Date.now()));
  }

  async #watch(target: ResourceRequest, exchange: Exchange, form: Representation): Promise<void> {
    const { kind, namespace } = target;
    const { query, response } = exchange;
    if (this.#watches.size >= this.#maxWatches) {
      throw tooManyRequests(`there are ${this.#watches.size} watches already, please try again later`);
    }
    const matches = parseSelectors(query, kind);
    const seconds = Math.min(
      parseCount(query, 'timeoutSeconds') || MAX_WATCH_SECONDS / 2 + Math.random() * (MAX_WATCH_SECONDS / 2),
      MAX_WATCH_SECONDS,
    );
    const sendInitial = query.get('sendInitialEvents');
    const match = query.get('resourceVersionMatch') ?? '';
    if (sendInitial !== null && match !== 'NotOlderThan')
      throw badRequest('sendInitialEvents requires setting resourceVersionMatch to NotOlderThan');
    const asked = parseRevision(query.get('resourceVersion') ?? '');
    const bookmarks = isTrue(query.get('allowWatchBookmarks'));
    const begin = (): WatchStream => {
      const stream: WatchStream = new WatchStream(response, {
        kind,
        representation: form,
        ...(matches && { matches }),
        bookmarks,
        timeoutMs: seconds * 1000,
        onEnd: () => this.#watches.delete(stream),
      });
      this.#watches.add(stream);
      return stream;
    };
    // With initial events a watch begins with the present; a bare resourceVersion resumes after it.
    const fromNow = sendInitial === 'true' || (sendInitial === null && asked === undefined);
    if (fromNow) {
      const page = await listPage(this.#store, kind, namespace, {
        limit: 0,
        exact: false,
        ...(matches && { matches }),
        ...(asked !== undefined && { revision: asked }),
      });
      const revision = Number(page.meta.resourceVersion);
      const stream = begin();
      stream.sendInitial(page.entries, revision, sendInitial === 'true' && bookmarks);
      return this.#follow(stream, kind, namespace, revision);
    }
    if (asked !== undefined && (asked > this.#store.revision || asked < this.#store.compactedRevision))
      // A revision that never was means a store that has been replaced: the client must list again as well.
      throw expired(`too old resource version: ${asked} (${this.#store.compactedRevision})`);
    return this.#follow(begin(), kind, namespace, asked);
  }

  async #follow(
    stream: WatchStream,
    kind: KindDeclaration,
    namespace: string | undefined,
    after: number | undefined,
  ): Promise<void> {
    try {
      const prefix = prefixOf(kind, namespace);
      stream.follow(await this.#store.watch(prefix, after === undefined ? {} : { after }, stream.onEvents));
    } catch (error) {
      if (!isWeftError(error, 'WEFT_STORE_COMPACTED')) throw error;
      stream.fail(expired(`too old resource version: ${after} (${this.#store.compactedRevision})`).status);
    }
  }

  async #create(target: ResourceRequest, exchange: Exchange, form: Representation): Promise<void> {
    const { kind, namespace } = target;
    const { request, response, query, identity } = exchange;
    const dryRun = parseDryRun(query);
    const input = readObject(
      kind,
      await readValue(request, kind.protobuf),
      parseFieldValidation(query.get('fieldValidation')),
      warner(response),
    );
    // Without a name (generateName) it is nobody's own: '' must not pass for "not known yet".
    const { name = '' } = input.object.metadata;
    authorize(identity, { ...target, path: '', name });
    if (kind.namespaced) await this.#requireNamespace(kind, name, namespace as string);
    const object = await this.registry(kind).create(input, namespace, dryRun);
    sendText(response, 201, objectTextAs(kind, form, object, Date.now()));
  }

  async #requireNamespace(kind: KindDeclaration, name: string, namespace: string): Promise<void> {
    const found = (await this.registry(namespaceKind as unknown as KindDeclaration).get(
      undefined,
      namespace,
    )) as Namespace;
    if (found.status?.phase === 'Terminating' || found.metadata.deletionTimestamp)
      refuseTerminating(kind, name, namespace);
  }

  /** PUT and PATCH, of the object or of its status. */
  async #change(target: ResourceRequest, exchange: Exchange, form: Representation): Promise<void> {
    const { kind, namespace, name = '', verb, subresource } = target;
    const { request, response, query, identity } = exchange;
    const validation = parseFieldValidation(query.get('fieldValidation'));
    const warn = warner(response);
    let change: (current: KubeObject) => Input;
    if (verb === 'update') {
      const value = await readValue(request, kind.protobuf);
      change = () => readObject(kind, structuredClone(value), validation, warn);
    } else {
      const type = mediaTypeOf(request);
      const apply = Object.hasOwn(PATCH_TYPES, type) ? PATCH_TYPES[type] : undefined;
      if (!apply)
        throw unsupportedMediaType(
          `${Object.keys(PATCH_TYPES).join(', ')}${type === 'application/apply-patch+yaml' ? ' (server-side apply is not served yet: use kubectl apply without --server-side)' : ''}`,
        );
      const patch = await parseBody(await readBody(request), type);
      change = (current) => {
        const patched = apply(current, patch, kind) as KubeObject;
        const version = current.metadata.resourceVersion;
        // A patch is against whatever is there, unless it names a version itself.
        if (patched?.metadata?.resourceVersion === version) delete patched.metadata.resourceVersion;
        return readObject(kind, patched, validation, warn);
      };
    }
    const permitted = (current: KubeObject): Input => {
      authorizeBound(identity, target, current);
      return change(current);
    };
    const object = await this.registry(kind).update(namespace, name, permitted, {
      status: subresource === 'status',
      dryRun: parseDryRun(query),
    });
    sendText(response, 200, objectTextAs(kind, form, object, Date.now()));
  }

  async #delete(target: ResourceRequest, exchange: Exchange, form: Representation): Promise<void> {
    const { kind, namespace, name = '' } = target;
    const wish = await readDeleteWish(exchange);
    if (kind.kind === 'Namespace' && UNDELETABLE_NAMESPACES.has(name))
      throw forbiddenRequest(
        `namespaces "${name}" is forbidden: this namespace may not be deleted`,
        kind,
        name,
      );
    const check = (current: KubeObject): void => authorizeBound(exchange.identity, target, current);
    const { object, gone } = await this.registry(kind).delete(namespace, name, { ...wish, check });
    // A pod that is ending is answered as it is; what is gone, by a Status, as kube-apiserver does.
    if (gone && kind.kind !== 'Pod')
      sendText(exchange.response, 200, JSON.stringify(deleted(kind, name, object.metadata.uid)));
    else sendText(exchange.response, 200, objectTextAs(kind, form, object, Date.now()));
  }

  async #deleteCollection(target: ResourceRequest, exchange: Exchange, form: Representation): Promise<void> {
    const { kind, namespace } = target;
    const wish = await readDeleteWish(exchange);
    const page = await listPage(this.#store, kind, namespace, parseListQuery(exchange.query, kind));
    for (const { key } of page.entries) {
      const [name = '', keyNamespace] = key.split('/').reverse();
      if (kind.kind === 'Namespace' && UNDELETABLE_NAMESPACES.has(name)) continue;
      try {
        await this.registry(kind).delete(kind.namespaced ? keyNamespace : undefined, name, wish);
      } catch (error) {
        if ((error as { code?: unknown }).code !== 404) throw error;
      }
    }
    sendText(exchange.response, 200, listText(kind, form, page.meta, page.entries, Date.now()));
  }

  /** POST pods/NAME/binding: the scheduler's decision. */
  async #bind(target: ResourceRequest, exchange: Exchange): Promise<void> {
    const { kind, namespace, name = '' } = target;
    const decoded = decode(bindingSchema, await readValue(exchange.request));
    if (decoded.typeErrors.length > 0) throw badRequest(decoded.typeErrors.join(', '));
    const subject = { group: '', plural: 'bindings', kind: 'Binding' };
    const { target: node, metadata } = decoded.value as {
      target?: { kind?: string; name?: string };
      metadata?: { name?: string; uid?: string };
    };
    if (metadata?.name && metadata.name !== name)
      throw badRequest(
        `the name of the object (${metadata.name}) does not match the name on the URL (${name})`,
      );
    if (node?.kind && node.kind !== 'Node')
      throw invalidObject(subject, name, [
        {
          field: 'target.kind',
          reason: 'FieldValueNotSupported',
          message: `Unsupported value: "${node.kind}": supported values: "Node"`,
        },
      ]);
    if (!node?.name)
      throw invalidObject(subject, name, [
        { field: 'target.name', reason: 'FieldValueRequired', message: 'Required value' },
      ]);
    const nodeName = node.name;
    await this.registry(kind).update(
      namespace,
      name,
      (current) => {
        const pod = current as Pod;
        if (metadata?.uid && metadata.uid !== pod.metadata.uid)
          throw conflict(
            kind,
            name,
            `Precondition failed: UID in precondition: ${metadata.uid}, UID in object meta: ${pod.metadata.uid}`,
          );
        if (pod.metadata.deletionTimestamp)
          throw conflict(kind, name, `pod ${name} is being deleted, cannot be assigned to a host`);
        if (pod.spec.nodeName)
          throw conflict(kind, name, `pod ${name} is already assigned to node "${pod.spec.nodeName}"`);
        pod.spec.nodeName = nodeName;
        const others = (pod.status?.conditions ?? []).filter((c) => c.type !== 'PodScheduled');
        const lastTransitionTime = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
        pod.status = {
          ...pod.status,
          conditions: [...others, { type: 'PodScheduled', status: 'True', lastTransitionTime }],
        };
        return { object: pod, problems: [] };
      },
      { lifecycle: true, dryRun: parseDryRun(exchange.query) },
    );
    sendText(
      exchange.response,
      201,
      '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}',
    );
  }
}

export function sendText(
  response: ServerResponse,
  code: number,
  text: string,
  contentType = 'application/json',
): void {
  const body = Buffer.from(text);
  response.writeHead(code, {
    'content-type': contentType,
    'content-length': body.length,
    'cache-control': 'no-cache, private',
  });
  response.end(body);
}

/** The body's value. `message`: how to read it if it is protobuf. */
async function readValue(request: IncomingMessage, message?: ProtoMessage): Promise<unknown> {
  const type = mediaTypeOf(request);
  const protobuf = type === PROTOBUF && message !== undefined;
  if (!protobuf && !JSON_TYPES.has(type)) throw unsupportedMediaType('application/json, application/yaml');
  const body = await readBody(request);
  return protobuf ? decodeProtobuf(body, message) : parseBody(body, type);
}

function parseDryRun(query: URLSearchParams): boolean {
  const values = query.getAll('dryRun').filter(Boolean);
  if (values.some((v) => v !== 'All'))
    throw badRequest(`dryRun: Unsupported value: ${JSON.stringify(values)}: supported values: "All"`);
  return values.length > 0;
}

/** RFC 7234 warnings, as kubectl prints them; each one once. */
function warner(response: ServerResponse): (text: string) => void {
  const told = new Set<string>();
  return (text) => {
    if (told.has(text) || told.size >= 20) return;
    told.add(text);
    // Header values are printable ASCII.
    const safe = text.replace(/[^\x20-\x7e]/g, '?').replace(/["\\]/g, (c) => `\\${c}`);
    response.appendHeader('warning', `299 - "${safe}"`);
  };
}

/** Who may write a Pod depends on the node it is bound to, as it stands in the store: what the request says does not count. */
function authorizeBound(identity: Identity, target: ResourceRequest, current: KubeObject): void {
  if (target.kind.kind !== 'Pod') return;
  authorize(identity, { ...target, path: '', boundTo: (current as Pod).spec.nodeName ?? '' });
}

interface DeleteBody {
  gracePeriodSeconds?: number;
  preconditions?: { uid?: string; resourceVersion?: string };
  dryRun?: string[];
}

async function readDeleteWish(exchange: Exchange): Promise<DeleteWish> {
  const { request, query } = exchange;
  const type = mediaTypeOf(request);
  const body = await readBody(request);
  let fromBody: DeleteBody = {};
  if (body.length > 0) {
    if (type !== PROTOBUF && !JSON_TYPES.has(type))
      throw unsupportedMediaType('application/json, application/yaml');
    const value =
      type === PROTOBUF ? decodeProtobuf(body, DELETE_OPTIONS_PROTO) : await parseBody(body, type);
    const decoded = decode(deleteOptions, value);
    if (decoded.typeErrors.length > 0) throw badRequest(decoded.typeErrors.join(', '));
    fromBody = decoded.value as DeleteBody;
  }
  const grace = fromBody.gracePeriodSeconds ?? parseCount(query, 'gracePeriodSeconds');
  const { uid, resourceVersion } = fromBody.preconditions ?? {};
  if (grace !== undefined && grace < 0)
    throw badRequest('gracePeriodSeconds: Invalid value: must be greater than or equal to 0');
  return {
    ...(grace !== undefined && { gracePeriodSeconds: grace }),
    ...(uid !== undefined && { uid }),
    ...(resourceVersion !== undefined && { resourceVersion }),
    dryRun: parseDryRun(query) || fromBody.dryRun?.includes('All') || false,
  };
}
