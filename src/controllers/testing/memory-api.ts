/** An API server in memory for tests of controllers: one ApiClient, and tables that follow it at once. */
import type { ApiClient, ObjectRef, Resource } from '../../api/client.ts';
import { ApiError } from '../../api/errors.ts';
import { objectKey } from '../../api/object-key.ts';
import type { KubeList, KubeObject } from '../../api/types.ts';
import { MemoryTable } from '../../state/memory-table.ts';
import type { KeyedRow, SourcedTable, TableRequest, TableSource } from '../../state/table-source.ts';

type Follower = {
  resource: Resource<KubeObject>;
  take: (key: string, object: KubeObject | undefined) => void;
};

export class MemoryApi implements ApiClient, TableSource {
  readonly log: string[] = [];
  /** Asked before each write; what it returns is thrown, before or (`late`) after the write. */
  fault: (verb: string, plural: string) => { error: Error; late?: boolean } | undefined = () => undefined;
  connected = true;
  readonly #objects = new Map<string, Map<string, KubeObject>>();
  readonly #followers: Follower[] = [];
  #version = 0;

  all<T extends KubeObject>(resource: Resource<T>): T[] {
    return [...this.#of(resource).values()] as T[];
  }

  peek<T extends KubeObject>(resource: Resource<T>, key: string): T | undefined {
    return this.#of(resource).get(key) as T | undefined;
  }

  /** What a user or an agent does, without any check. */
  put<T extends KubeObject>(resource: Resource<T>, object: T): T {
    const old = this.#of(resource).get(objectKey(object));
    return this.#store(resource, {
      ...object,
      metadata: { uid: old?.metadata.uid ?? `uid-${++this.#version}`, ...object.metadata },
    });
  }

  remove<T extends KubeObject>(resource: Resource<T>, key: string): void {
    this.#of(resource).delete(key);
    for (const f of this.#followers) if (f.resource.plural === resource.plural) f.take(key, undefined);
  }

  open<T extends KubeObject, R extends KeyedRow>(request: TableRequest<T, R>): SourcedTable<R> {
    const table = new MemoryTable<R>(request.resource.plural, (row) => row.key);
    const take: Follower['take'] = (key, object) => {
      if (request.namespace && object && object.metadata.namespace !== request.namespace) return;
      const row = object && request.map(object as T);
      if (row) table.upsert(row);
      else table.delete(key);
    };
    for (const object of this.#of(request.resource).values()) take(objectKey(object), object);
    this.#followers.push({ resource: request.resource, take });
    const api = this;
    return {
      table,
      synced: Promise.resolve(),
      get connected() {
        return api.connected;
      },
      close: () => Promise.resolve(),
    };
  }

  list<T extends KubeObject>(resource: Resource<T>): Promise<KubeList<T>> {
    const metadata = { resourceVersion: String(this.#version) };
    return Promise.resolve({
      apiVersion: 'v1',
      kind: `${resource.kind}List`,
      metadata,
      items: this.all(resource),
    });
  }

  async get<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef): Promise<T> {
    const found = this.#of(resource).get(objectKey({ metadata: ref }));
    if (!found) throw refusal(404, 'NotFound', `${resource.plural} "${ref.name}" not found`);
    return structuredClone(found) as T;
  }

  create<T extends KubeObject>(resource: Resource<T>, object: T): Promise<T> {
    return this.#write('create', resource, object.metadata.name, () => {
      if (this.#of(resource).has(objectKey(object))) throw refusal(409, 'AlreadyExists', 'already exists');
      return this.put(resource, object);
    });
  }

  update<T extends KubeObject>(resource: Resource<T>, object: T, subresource?: 'status'): Promise<T> {
    return this.patch(resource, object.metadata, object, subresource ? { subresource } : {});
  }

  patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: unknown,
    options: { subresource?: 'status' | 'binding' } = {},
  ): Promise<T> {
    const verb = options.subresource ? `patch/${options.subresource}` : 'patch';
    return this.#write(verb, resource, ref.name, async () => {
      const old = await this.get(resource, ref);
      const wanted = (patch as Partial<KubeObject>).metadata;
      for (const field of ['resourceVersion', 'uid'] as const) {
        if (wanted?.[field] !== undefined && wanted[field] !== old.metadata[field]) {
          throw refusal(409, 'Conflict', `the object has been modified (${field})`);
        }
      }
      const merged = merge(old, patch) as T & { status?: unknown };
      // As in Kubernetes: the status is changed by way of its subresource, and nothing else is.
      const { status } = old as { status?: unknown };
      return this.#store(
        resource,
        options.subresource ? { ...old, status: merged.status } : { ...merged, status },
      );
    });
  }

  async delete<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    options: { uid?: string } = {},
  ): Promise<void> {
    await this.#write('delete', resource, ref.name, async () => {
      const old = await this.get(resource, ref);
      if (options.uid && options.uid !== old.metadata.uid) throw refusal(409, 'Conflict', 'another uid');
      this.remove(resource, objectKey(old));
    });
  }

  watch(): never {
    throw new Error('not a part of this fake: use open()');
  }

  async #write<V>(
    verb: string,
    resource: Resource<KubeObject>,
    name: string,
    act: () => V,
  ): Promise<Awaited<V>> {
    await new Promise((resolve) => setImmediate(resolve));
    const fault = this.fault(verb, resource.plural);
    if (fault && !fault.late) throw fault.error;
    this.log.push(`${verb} ${resource.plural} ${name}`);
    const result = await act();
    if (fault) throw fault.error;
    return result;
  }

  #of(resource: Resource<KubeObject>): Map<string, KubeObject> {
    let objects = this.#objects.get(resource.plural);
    if (!objects) {
      objects = new Map();
      this.#objects.set(resource.plural, objects);
    }
    return objects;
  }

  #store<T extends KubeObject>(resource: Resource<T>, object: T): T {
    const stored = structuredClone(object);
    stored.metadata.resourceVersion = String(++this.#version);
    this.#of(resource).set(objectKey(stored), stored);
    for (const f of this.#followers)
      if (f.resource.plural === resource.plural) f.take(objectKey(stored), stored);
    return structuredClone(stored);
  }
}

function refusal(code: number, reason: string, message: string): ApiError {
  return new ApiError({
    apiVersion: 'v1',
    kind: 'Status',
    metadata: {},
    status: 'Failure',
    code,
    reason,
    message,
  });
}

/** RFC 7396. */
function merge(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else if (value !== undefined) result[key] = merge(result[key], value);
  }
  return result;
}
