/**
 * What can be done with the objects of one kind: create, read, update, delete, with Kubernetes' rules for metadata,
 * generations, finalizers, grace periods and optimistic concurrency. Knows nothing of HTTP.
 */
import { randomInt, randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { FieldProblem } from '../api/decode.ts';
import type { KindDeclaration } from '../api/kind-declaration.ts';
import { validateMetadata, validateMetadataUpdate } from '../api/metadata.ts';
import {
  alreadyExists,
  badRequest,
  conflict,
  forbiddenRequest,
  invalidObject,
  nameGenerationFailed,
  notFound,
  staleObject,
} from '../api/statuses.ts';
import type { KubeObject } from '../api/types.ts';
import type { Store, StoreEntry } from '../store/store.ts';
import { decodeObject, encodeObject, keyOf } from './object-codec.ts';
import type { Input } from './object-input.ts';

/** Attempts at a write without a resourceVersion of the caller's before giving up on a contended object. */
const MAX_ATTEMPTS = 30;
/** No vowels: no words by chance. The same alphabet as Kubernetes'. */
const NAME_ALPHABET = 'bcdfghjklmnpqrstvwxz2456789';

export interface DeleteWish {
  gracePeriodSeconds?: number;
  uid?: string;
  resourceVersion?: string;
  dryRun?: boolean;
  /** Throws if this very object is not to be deleted by whoever wishes so. */
  check?: (current: KubeObject) => void;
}

/** The object is still there (being deleted), or gone. */
export type DeleteOutcome = { object: KubeObject; gone: boolean };

export class Registry {
  readonly kind: KindDeclaration;
  readonly #store: Store;
  readonly #now: () => number;

  constructor(kind: KindDeclaration, store: Store, now: () => number = Date.now) {
    this.kind = kind;
    this.#store = store;
    this.#now = now;
  }

  async entry(namespace: string | undefined, name: string): Promise<StoreEntry> {
    const entry = await this.#store.get(keyOf(this.kind, namespace, name));
    if (!entry) throw notFound(this.kind, name);
    return entry;
  }

  async get(namespace: string | undefined, name: string): Promise<KubeObject> {
    return decodeObject(await this.entry(namespace, name));
  }

  /** `namespace` has been checked to exist. */
  async create(input: Input, namespace: string | undefined, dryRun = false): Promise<KubeObject> {
    const { object } = input;
    const meta = object.metadata;
    if (meta.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created');
    this.#settleNamespace(object, namespace);
    meta.uid = randomUUID();
    meta.creationTimestamp = this.#timestamp();
    delete meta.deletionTimestamp;
    delete meta.deletionGracePeriodSeconds;
    delete meta.generation;
    if (this.kind.statusSubresource) {
      meta.generation = 1;
      if (!this.kind.keepsStatusOnCreate) delete (object as { status?: unknown }).status;
    }
    const generated = !meta.name && !!meta.generateName;
    for (let attempt = 1; ; attempt++) {
      if (generated) {
        meta.name = generateName(meta.generateName as string);
        this.kind.applyDefaults?.(object);
      }
      if (attempt === 1) {
        this.#refuseProblems(object, [
          ...validateMetadata(meta, (name) => this.kind.nameProblem(name)),
          ...input.problems,
          ...(this.kind.validate?.(object) ?? []),
        ]);
        this.kind.prepareCreate?.(object);
      }
      const key = keyOf(this.kind, namespace, meta.name);
      if (dryRun) {
        if (await this.#store.get(key)) throw alreadyExists(this.kind, meta.name);
        return object;
      }
      const result = await this.#store.create(key, encodeObject(this.kind, object));
      if (result.ok) {
        meta.resourceVersion = String(result.revision);
        return object;
      }
      if (!generated) throw alreadyExists(this.kind, meta.name);
      if (attempt === 8) throw nameGenerationFailed(this.kind, meta.name);
    }
  }

  /**
   * Read, change, write. `change` gets the object as it is and gives what it is to be; it runs again when another
   * writer came between, unless the result names a resourceVersion (then: 409). `status`: only status (and labels and
   * annotations) may change; otherwise all but status. `lifecycle`: the server's own change, not validated.
   */
  async update(
    namespace: string | undefined,
    name: string,
    change: (current: KubeObject) => Input | Promise<Input>,
    options: { status?: boolean; dryRun?: boolean; lifecycle?: boolean } = {},
  ): Promise<KubeObject> {
    for (let attempt = 1; ; attempt++) {
      const entry = await this.entry(namespace, name);
      const current = decodeObject(entry);
      const input = await change(structuredClone(current));
      const next = input.object;
      if (next.metadata.name !== name)
        throw badRequest(
          `the name of the object (${next.metadata.name || '""'}) does not match the name on the URL (${name})`,
        );
      this.#settleNamespace(next, namespace);
      const asked = next.metadata.resourceVersion;
      if (asked && asked !== '0' && asked !== String(entry.revision)) throw staleObject(this.kind, name);
      if (next.metadata.uid && next.metadata.uid !== current.metadata.uid)
        throw conflict(
          this.kind,
          name,
          `Precondition failed: UID in precondition: ${next.metadata.uid}, UID in object meta: ${current.metadata.uid}`,
        );
      if (!options.lifecycle) this.#keepServerFields(next, current, options.status ?? false);
      if (!options.lifecycle) this.#validateUpdate(input, current, options.status ?? false);
      const text = encodeObject(this.kind, next);
      next.metadata.resourceVersion = String(entry.revision);
      if (options.dryRun) return next;
      const finished =
        next.metadata.deletionTimestamp !== undefined &&
        !next.metadata.finalizers?.length &&
        !next.metadata.deletionGracePeriodSeconds &&
        this.kind.kind !== 'Namespace';
      if (!finished && text === entry.value) return next;
      const result = finished
        ? await this.#store.delete(entry.key, entry.revision)
        : await this.#store.update(entry.key, text, entry.revision);
      if (result.ok) {
        next.metadata.resourceVersion = String(result.revision);
        return next;
      }
      if (!result.current) throw notFound(this.kind, name);
      if ((asked && asked !== '0') || attempt >= MAX_ATTEMPTS) throw staleObject(this.kind, name);
    }
  }

  /** At once, or by marking it when there is a grace period or a finalizer to wait for. */
  async delete(namespace: string | undefined, name: string, wish: DeleteWish): Promise<DeleteOutcome> {
    for (;;) {
      const entry = await this.entry(namespace, name);
      const current = decodeObject(entry);
      const meta = current.metadata;
      wish.check?.(current);
      if (wish.uid !== undefined && wish.uid !== meta.uid)
        throw conflict(
          this.kind,
          name,
          `Precondition failed: UID in precondition: ${wish.uid}, UID in object meta: ${meta.uid}`,
        );
      if (wish.resourceVersion !== undefined && wish.resourceVersion !== String(entry.revision))
        throw conflict(
          this.kind,
          name,
          `Precondition failed: resourceVersion in precondition: ${wish.resourceVersion}, resourceVersion in object meta: ${entry.revision}`,
        );
      const grace = this.kind.gracePeriodSeconds?.(current, wish.gracePeriodSeconds) ?? 0;
      if (grace === 0 && !meta.finalizers?.length && this.kind.kind !== 'Namespace') {
        if (wish.dryRun) return { object: current, gone: true };
        const result = await this.#store.delete(entry.key, entry.revision);
        if (result.ok) {
          meta.resourceVersion = String(result.revision);
          return { object: current, gone: true };
        }
        if (!result.current) throw notFound(this.kind, name);
        continue;
      }
      // A second deletion may shorten the grace period, never lengthen it.
      const running = meta.deletionTimestamp !== undefined;
      if (running && grace >= (meta.deletionGracePeriodSeconds ?? 0)) return { object: current, gone: false };
      meta.deletionTimestamp = new Date(this.#now() + grace * 1000).toISOString().replace(/\.\d+Z$/, 'Z');
      meta.deletionGracePeriodSeconds = grace;
      if (this.kind.statusSubresource && !running) meta.generation = (meta.generation ?? 1) + 1;
      if (this.kind.kind === 'Namespace') (current as { status?: unknown }).status = { phase: 'Terminating' };
      if (wish.dryRun) return { object: current, gone: false };
      const result = await this.#store.update(entry.key, encodeObject(this.kind, current), entry.revision);
      if (result.ok) {
        meta.resourceVersion = String(result.revision);
        return { object: current, gone: false };
      }
      if (!result.current) throw notFound(this.kind, name);
    }
  }

  #settleNamespace(object: KubeObject, namespace: string | undefined): void {
    const meta = object.metadata;
    if (!this.kind.namespaced) {
      if (meta.namespace) throw badRequest(`namespace is not allowed on ${this.kind.kind} objects`);
      delete meta.namespace;
    } else if (meta.namespace && meta.namespace !== namespace)
      throw badRequest(
        'the namespace of the provided object does not match the namespace sent on the request',
      );
    else meta.namespace = namespace as string;
  }

  /** What clients cannot change: the server's own metadata, and the half that belongs to the other endpoint. */
  #keepServerFields(next: KubeObject, current: KubeObject, statusOnly: boolean): void {
    const [a, b] = [next.metadata, current.metadata];
    for (const field of [
      'uid',
      'creationTimestamp',
      'deletionTimestamp',
      'deletionGracePeriodSeconds',
      'generation',
      'generateName',
    ] as const) {
      if (b[field] === undefined) delete a[field];
      else Object.assign(a, { [field]: b[field] });
    }
    const whole = next as unknown as Record<string, unknown>;
    const before = current as unknown as Record<string, unknown>;
    if (statusOnly) {
      for (const field of ['finalizers', 'ownerReferences'] as const) {
        if (b[field] === undefined) delete a[field];
        else Object.assign(a, { [field]: b[field] });
      }
      for (const key of new Set([...Object.keys(whole), ...Object.keys(before)]))
        if (key !== 'status' && key !== 'metadata') restore(whole, before, key);
      return;
    }
    if (!this.kind.statusSubresource) return;
    restore(whole, before, 'status');
    if (!isDeepStrictEqual(withoutMeta(whole), withoutMeta(before))) a.generation = (b.generation ?? 0) + 1;
  }

  #validateUpdate(input: Input, current: KubeObject, statusOnly: boolean): void {
    const next = input.object;
    const problems = [
      ...validateMetadata(next.metadata, (name) => this.kind.nameProblem(name)),
      ...validateMetadataUpdate(next, current),
      // The spec is the stored one: what the client sent of it is not looked at.
      ...input.problems.filter((problem) => !statusOnly || problem.field.startsWith('status')),
      ...(statusOnly ? [] : (this.kind.validate?.(next) ?? [])),
    ];
    this.#refuseProblems(next, problems);
    if (!statusOnly) this.#refuseProblems(next, this.kind.validateUpdate?.(next, current) ?? []);
  }

  #refuseProblems(object: KubeObject, problems: FieldProblem[]): void {
    if (problems.length === 0) return;
    const seen = new Set<string>();
    const unique = problems.filter(({ field, message }) => {
      const id = `${field}: ${message}`;
      return !seen.has(id) && seen.add(id);
    });
    throw invalidObject(
      this.kind,
      object.metadata.name || object.metadata.generateName || '',
      unique.slice(0, 50),
    );
  }

  #timestamp(): string {
    return new Date(this.#now()).toISOString().replace(/\.\d+Z$/, 'Z');
  }
}

function restore(whole: Record<string, unknown>, before: Record<string, unknown>, key: string): void {
  if (before[key] === undefined) delete whole[key];
  else whole[key] = before[key];
}

const withoutMeta = ({ metadata: _m, status: _s, ...rest }: Record<string, unknown>): object => rest;

function generateName(prefix: string): string {
  let suffix = '';
  for (let i = 0; i < 5; i++) suffix += NAME_ALPHABET[randomInt(NAME_ALPHABET.length)];
  return `${prefix.slice(0, 58)}${suffix}`;
}

/** A namespace that is going takes nothing new. */
export function refuseTerminating(kind: KindDeclaration, name: string, namespace: string): never {
  const error = forbiddenRequest(
    `${kind.plural} "${name}" is forbidden: unable to create new content in namespace ${namespace} because it is being terminated`,
    kind,
    name,
  );
  error.status.details = {
    ...error.status.details,
    causes: [
      {
        reason: 'NamespaceTerminating',
        message: `namespace ${namespace} is being terminated`,
        field: 'metadata.namespace',
      },
    ],
  };
  throw error;
}
