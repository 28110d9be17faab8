/** `weft up`: a lab, the manifests that were asked for, and the proof that packets arrive. */
import { readFileSync } from 'node:fs';
import { parseAllDocuments } from 'yaml';
import type { ApiClient, Resource } from '../../api/client.ts';
import * as client from '../../api/client.ts';
import type { FabricBackend } from '../../api/config.ts';
import { isAlreadyExists } from '../../api/errors.ts';
import type { KubeObject } from '../../api/types.ts';
import { messageOf, WeftError } from '../../base/errors.ts';
import { createLab, labClient, labReachability, renderReachability } from '../../lab/lab.ts';

export interface UpOptions {
  lab: string;
  nodes: number;
  fabric: string;
  subnets: number;
  filename: string[];
  verify: boolean;
}

const FABRICS: readonly FabricBackend[] = ['auto', 'vxlan', 'host-gw'];

export async function up(options: UpOptions): Promise<void> {
  const began = performance.now();
  const say = (text: string): void => {
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    process.stdout.write(`${seconds.padStart(6)} s  ${text}\n`);
  };
  if (!FABRICS.includes(options.fabric as FabricBackend)) {
    throw new WeftError(
      'WEFT_BAD_CONFIG',
      `there is no fabric ${options.fabric}; there are ${FABRICS.join(', ')}`,
    );
  }
  const manifests = options.filename.map(readManifest);
  const lab = await createLab(
    {
      name: options.lab,
      nodes: options.nodes,
      subnets: options.subnets,
      fabric: options.fabric as FabricBackend,
      probe: options.verify,
    },
    say,
  );
  say(
    `${options.nodes} nodes are Ready (lab ${options.lab}${lab.created ? '' : ', which was there already'})`,
  );

  if (manifests.length > 0) {
    const api = await labClient(options.lab);
    for (const objects of manifests) {
      for (const object of objects) say(await applyOnce(api, object));
    }
  }
  if (options.verify) {
    const reachability = await labReachability(options.lab);
    process.stdout.write(`\n${renderReachability(reachability)}\n\n`);
    if (!reachability.ok) process.exitCode = 1;
  }
  say('up');
  const named = options.lab === 'default' ? '' : ` -l ${options.lab}`;
  process.stdout.write(
    [
      '',
      `  export KUBECONFIG=$(./weft kubeconfig${named})`,
      '  kubectl get nodes -o wide',
      '  kubectl apply -f examples/hello.yaml && kubectl get pods -o wide',
      `  ./weft exec${named} hello-a -- ip addr`,
      `  ./weft down${named}`,
      '',
    ].join('\n'),
  );
}

/** @throws WEFT_BAD_CONFIG naming file and document */
function readManifest(file: string): KubeObject[] {
  let text: string;
  try {
    text = readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw new WeftError('WEFT_BAD_CONFIG', `cannot read the manifest ${file}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return parseAllDocuments(text).flatMap((document, index) => {
    const where = `${file}, document ${index + 1}`;
    if (document.errors.length > 0)
      throw new WeftError('WEFT_BAD_CONFIG', `${where}: ${document.errors[0]!.message}`);
    const object = document.toJS() as KubeObject | null;
    if (object === null) return [];
    if (typeof object.kind !== 'string' || typeof object.apiVersion !== 'string' || !object.metadata?.name) {
      throw new WeftError('WEFT_BAD_CONFIG', `${where}: apiVersion, kind and metadata.name are needed`);
    }
    return [object];
  });
}

/** Create, or patch what is there to say the same. */
async function applyOnce(api: ApiClient, object: KubeObject): Promise<string> {
  const resource = resourceOf(object);
  const name = `${resource.plural}/${object.metadata.name}`;
  if (resource.namespaced) object.metadata.namespace ??= 'default';
  try {
    await api.create(resource, object);
    return `${name} created`;
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    const ref = {
      name: object.metadata.name,
      ...(resource.namespaced && { namespace: object.metadata.namespace! }),
    };
    await api.patch(resource, ref, object, { type: 'strategic' });
    return `${name} configured`;
  }
}

function resourceOf(object: KubeObject): Resource<KubeObject> {
  const known = Object.values(client).filter(
    (value): value is Resource<KubeObject> =>
      typeof value === 'object' && value !== null && 'plural' in value,
  );
  const found = known.find(
    ({ group, version, kind }) =>
      kind === object.kind && object.apiVersion === (group ? `${group}/${version}` : version),
  );
  if (!found) {
    throw new WeftError('WEFT_BAD_CONFIG', `there is no kind ${object.apiVersion} ${object.kind} here`, {
      details: { known: known.map(({ kind }) => kind) },
    });
  }
  return found;
}
