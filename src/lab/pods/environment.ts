/**
 * The environment and command line of a container, as kubelet computes them: `value` and `valueFrom`, and `$(NAME)` in values,
 * command and args.
 *
 * Source: https://kubernetes.io/docs/tasks/inject-data-application/, k8s.io/kubernetes third_party/forked/golang/expansion
 */
import type { ConfigMap, Container, EnvVar, Pod } from '../../api/types.ts';

/** Something that the container cannot start without: kubelet's CreateContainerConfigError. */
export class ContainerConfigError extends Error {}

/**
 * `$(NAME)` becomes its value, `$$` a `$` (so `$$(NAME)` stays `$(NAME)`), and a reference to an unknown name stays as it is.
 */
export function expand(text: string, values: Readonly<Record<string, string>>): string {
  return text.replace(/\$(\$|\(([^()]*)\))/g, (whole, kind: string, name: string | undefined) => {
    if (kind === '$') return '$';
    return name !== undefined && Object.hasOwn(values, name) ? values[name]! : whole;
  });
}

/**
 * Variables in order, each seeing those before it. The pod's status must hold the addresses that `status.podIP` refers to.
 * @throws ContainerConfigError
 */
export function containerEnvironment(
  pod: Pod,
  container: Container,
  configMap: (name: string) => ConfigMap | undefined,
): Record<string, string> {
  const values: Record<string, string> = {};
  for (const variable of container.env ?? []) {
    const value = variableValue(variable, pod, configMap);
    if (value !== undefined) values[variable.name] = variable.valueFrom ? value : expand(value, values);
  }
  return values;
}

function variableValue(
  { name, value, valueFrom }: EnvVar,
  pod: Pod,
  configMap: (name: string) => ConfigMap | undefined,
): string | undefined {
  if (!valueFrom) return value ?? '';
  if (valueFrom.fieldRef) return fieldValue(pod, valueFrom.fieldRef.fieldPath);
  if (valueFrom.configMapKeyRef) {
    const { name: mapName, key, optional } = valueFrom.configMapKeyRef;
    const map = configMap(mapName);
    const found = map?.data?.[key];
    if (found !== undefined || optional) return found;
    throw new ContainerConfigError(
      map
        ? `couldn't find key ${key} in ConfigMap ${pod.metadata.namespace}/${mapName}`
        : `configmap "${mapName}" not found`,
    );
  }
  throw new ContainerConfigError(`variable ${name}: only fieldRef and configMapKeyRef can be used in a lab`);
}

/** The fields that the downward API offers to variables. @throws ContainerConfigError */
export function fieldValue(pod: Pod, path: string): string {
  const { metadata, spec, status } = pod;
  switch (path) {
    case 'metadata.name':
      return metadata.name;
    case 'metadata.namespace':
      return metadata.namespace ?? '';
    case 'metadata.uid':
      return metadata.uid ?? '';
    case 'spec.nodeName':
      return spec.nodeName ?? '';
    case 'spec.serviceAccountName':
      return spec.serviceAccountName ?? '';
    case 'status.podIP':
      return status?.podIP ?? '';
    case 'status.podIPs':
      return (status?.podIPs ?? []).map(({ ip }) => ip).join(',');
    case 'status.hostIP':
      return status?.hostIP ?? '';
    case 'status.hostIPs':
      return (status?.hostIPs ?? []).map(({ ip }) => ip).join(',');
  }
  const subscript = /^metadata\.(labels|annotations)\['([^']*)'\]$/.exec(path);
  if (subscript) return metadata[subscript[1] as 'labels' | 'annotations']?.[subscript[2]!] ?? '';
  throw new ContainerConfigError(`field ${path} cannot be used in a variable`);
}

/** `command` replaces the image's entry point, `args` its arguments; `$(NAME)` is expanded in both. */
export function commandLine(
  container: Container,
  image: { entrypoint: string[]; args: string[] },
  environment: Readonly<Record<string, string>>,
): string[] {
  const command = container.command?.length ? container.command : undefined;
  const args = container.args?.length ? container.args : command ? [] : image.args;
  const all = (texts: string[]): string[] => texts.map((text) => expand(text, environment));
  return [...(command ? all(command) : image.entrypoint), ...(args === image.args ? args : all(args))];
}
