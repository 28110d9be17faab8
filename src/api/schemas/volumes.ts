/** core/v1 volumes of a pod. Sources that only storage drivers read are kept as they are. */
import {
  bool,
  int,
  int64,
  keyed,
  like,
  list,
  named,
  object,
  oneOf,
  open,
  quantity,
  type Schema,
  str,
  stringMap,
} from '../schema.ts';
import { labelSelector, objectMeta } from './meta.ts';

const core = (kind: string): string => `io.k8s.api.core.v1.${kind}`;
const mode = int('Permission bits, 0 to 0777.', { minimum: 0, maximum: 0o777 });
const defaultMode = like(mode, { default: 0o644 });

const keyToPath = named(core('KeyToPath'), 'Puts a key into a file.', {
  'key!': str('Key.'),
  'path!': str('Relative path of the file.'),
  mode,
});
const items = list(keyToPath, 'Keys to project, and where to; absent: all.');
const localReference = named(core('LocalObjectReference'), 'An object of the same namespace.', {
  name: str('Name of the object.', { default: '' }),
});
export const localObjectReference: Schema = localReference;

export const objectFieldSelector = named(core('ObjectFieldSelector'), 'A field of the object.', {
  apiVersion: str('Version the path is written for.', { default: 'v1' }),
  'fieldPath!': str('Path of the field.'),
});
export const resourceFieldSelector = named(core('ResourceFieldSelector'), 'A resource of a container.', {
  containerName: str('Container; needed in volumes.'),
  'resource!': str('Resource, such as limits.cpu.'),
  divisor: quantity('Unit of the output.'),
});
const downwardItem = named(core('DownwardAPIVolumeFile'), 'A file with a field of the pod.', {
  'path!': str('Relative path of the file.'),
  fieldRef: objectFieldSelector,
  resourceFieldRef: resourceFieldSelector,
  mode,
});

const projection = named(core('VolumeProjection'), 'One source of a projected volume.', {
  configMap: object('Keys of a ConfigMap.', { name: str('', { default: '' }), items, optional: bool() }),
  secret: object('Keys of a Secret.', { name: str('', { default: '' }), items, optional: bool() }),
  downwardAPI: object('Fields of the pod.', { items: list(downwardItem) }),
  serviceAccountToken: object('A token.', {
    audience: str(),
    expirationSeconds: int64('', { default: 3600 }),
    'path!': str(),
  }),
  clusterTrustBundle: object('Trust anchors.', {
    name: str(),
    signerName: str(),
    labelSelector,
    optional: bool(),
    'path!': str(),
  }),
  podCertificate: open('A certificate issued to the pod.'),
});

const claimSpec = object('What is claimed.', {
  accessModes: list(str()),
  resources: object('Amounts.', {
    limits: { type: 'object', additionalProperties: quantity() },
    requests: { type: 'object', additionalProperties: quantity() },
  }),
  selector: labelSelector,
  storageClassName: str(),
  volumeMode: str(),
  volumeName: str(),
  volumeAttributesClassName: str(),
  dataSource: open(),
  dataSourceRef: open(),
});

export const volume: Schema = named(
  core('Volume'),
  'A directory that containers of the pod can mount.',
  {
    'name!': str('Name; a DNS label.'),
    emptyDir: object('A directory that lives as long as the pod.', {
      medium: str('"" or Memory.'),
      sizeLimit: quantity('Most it may hold.'),
    }),
    hostPath: object('A path of the node.', {
      'path!': str('Path.'),
      type: oneOf(
        ['', 'DirectoryOrCreate', 'Directory', 'FileOrCreate', 'File', 'Socket', 'CharDevice', 'BlockDevice'],
        'What must be there.',
        { default: '' },
      ),
    }),
    configMap: object('Files from a ConfigMap.', {
      name: str('', { default: '' }),
      items,
      defaultMode,
      optional: bool(),
    }),
    secret: object('Files from a Secret.', { secretName: str(), items, defaultMode, optional: bool() }),
    downwardAPI: object('Files with fields of the pod.', { items: list(downwardItem), defaultMode }),
    projected: object('Several sources in one directory.', { sources: list(projection), defaultMode }),
    persistentVolumeClaim: object('A claim of the same namespace.', {
      'claimName!': str(),
      readOnly: bool(),
    }),
    ephemeral: object('A claim that lives as long as the pod.', {
      volumeClaimTemplate: object('', { metadata: objectMeta, 'spec!': claimSpec }),
    }),
    nfs: object('An NFS export.', { 'server!': str(), 'path!': str(), readOnly: bool() }),
    csi: object('A CSI driver.', {
      'driver!': str(),
      fsType: str(),
      readOnly: bool(),
      volumeAttributes: stringMap(),
      nodePublishSecretRef: localReference,
    }),
    image: object('An OCI image or artifact.', { reference: str(), pullPolicy: str() }),
    ...Object.fromEntries(
      [
        'awsElasticBlockStore azureDisk azureFile cephfs cinder fc flexVolume flocker gcePersistentDisk gitRepo',
        'glusterfs iscsi photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume',
      ]
        .join(' ')
        .split(' ')
        .map((source) => [source, open('A source that Weft passes on.')]),
    ),
  },
  { retainKeys: true },
);

export const volumes: Schema = keyed(volume, ['name'], 'Volumes that containers can mount.', {
  retainKeys: true,
});
