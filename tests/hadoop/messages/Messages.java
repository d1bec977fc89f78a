import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.Descriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.EnumDescriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.EnumValueDescriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.FieldDescriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.FileDescriptor;

/**
 * Compares our definitions of Hadoop's messages with those that are compiled into the client's own classes: every
 * message, field and enum value that we have must be there with the same number, label and type, and no field may be
 * missing here.
 *
 * <p>Argument: the folder with the .proto files. Prints each difference; the exit code is 1 if there is one.
 *
 * <p>It reads what our files are written in (one field per line, or a message on one line), not the whole language.
 */
public final class Messages {
    private static final String HDFS = "org.apache.hadoop.hdfs.protocol.proto.";
    private static final String[] CLASSES = {
        HDFS + "AclProtos", HDFS + "ErasureCodingProtos", HDFS + "EncryptionZonesProtos", HDFS + "HdfsProtos",
        HDFS + "XAttrProtos", HDFS + "InotifyProtos", HDFS + "ClientNamenodeProtocolProtos",
        HDFS + "ClientDatanodeProtocolProtos", HDFS + "ReconfigurationProtocolProtos", HDFS + "DataTransferProtos",
        "org.apache.hadoop.ha.proto.HAServiceProtocolProtos",
        "org.apache.hadoop.security.proto.SecurityProtos",
        "org.apache.hadoop.security.proto.RefreshUserMappingsProtocolProtos",
        "org.apache.hadoop.security.proto.RefreshAuthorizationPolicyProtocolProtos",
        "org.apache.hadoop.ipc.proto.RefreshCallQueueProtocolProtos",
        "org.apache.hadoop.ipc.proto.GenericRefreshProtocolProtos",
        "org.apache.hadoop.tools.proto.GetUserMappingsProtocolProtos",
        "org.apache.hadoop.ipc.protobuf.RpcHeaderProtos",
        "org.apache.hadoop.ipc.protobuf.IpcConnectionContextProtos",
        "org.apache.hadoop.ipc.protobuf.ProtobufRpcEngine2Protos",
    };
    /** What is called otherwise here, since all messages share one name space. */
    private static final Map<String, String> RENAMED = Map.of("StatusProto", "Status");
    private static final Pattern BLOCK = Pattern.compile("\\b(message|enum)\\s+(\\w+)\\s*\\{");
    private static final Pattern FIELD = Pattern.compile(
        "\\b(required|optional|repeated)\\s+([\\w.]+)\\s+(\\w+)\\s*=\\s*(\\d+)\\s*(\\[[^\\]]*\\])?\\s*;");
    private static final Pattern VALUE = Pattern.compile("(\\w+)\\s*=\\s*(\\d+)\\s*;");

    private final Map<String, Descriptor> messages = new LinkedHashMap<>();
    private final Map<String, EnumDescriptor> enums = new LinkedHashMap<>();
    private final List<String> differences = new ArrayList<>();
    private int fields;

    public static void main(String[] args) throws Exception {
        Messages all = new Messages();
        for (String name : CLASSES) {
            all.load(name);
        }
        try (var files = Files.newDirectoryStream(Path.of(args[0]), "*.proto")) {
            for (Path file : files) {
                String text = Files.readString(file).replaceAll("//[^\n]*", "");
                all.compare(file.getFileName() + ": ", text);
            }
        }
        all.differences.forEach(System.out::println);
        System.out.println(all.fields + " fields compared, " + all.differences.size() + " differences");
        System.exit(all.differences.isEmpty() && all.fields > 0 ? 0 : 1);
    }

    private void load(String className) throws Exception {
        Class<?> holder;
        try {
            holder = Class.forName(className);
        } catch (ClassNotFoundException missing) {
            // Not every release has every one.
            return;
        }
        FileDescriptor file = (FileDescriptor) holder.getMethod("getDescriptor").invoke(null);
        file.getEnumTypes().forEach(type -> enums.putIfAbsent(type.getName(), type));
        file.getMessageTypes().forEach(this::load);
    }

    private void load(Descriptor message) {
        messages.putIfAbsent(message.getName(), message);
        message.getEnumTypes().forEach(type -> enums.putIfAbsent(type.getName(), type));
        message.getNestedTypes().forEach(this::load);
    }

    /** Goes through the blocks of a text; what stands in an inner block is not the outer one's. */
    private void compare(String where, String text) {
        Matcher block = BLOCK.matcher(text);
        int from = 0;
        while (block.find(from)) {
            int depth = 1;
            int end = block.end();
            while (depth > 0) {
                char at = text.charAt(end++);
                depth += at == '{' ? 1 : at == '}' ? -1 : 0;
            }
            String body = text.substring(block.end(), end - 1);
            if (block.group(1).equals("enum")) {
                compareEnum(where + block.group(2), block.group(2), body);
            } else {
                compare(where + block.group(2) + ".", body);
                compareMessage(where + block.group(2), block.group(2), withoutBlocks(body));
            }
            from = end;
        }
    }

    private static String withoutBlocks(String body) {
        String before;
        do {
            before = body;
            body = body.replaceAll("\\b(message|enum)\\s+\\w+\\s*\\{[^{}]*\\}", "");
        } while (!before.equals(body));
        return body;
    }

    private void compareEnum(String where, String name, String body) {
        EnumDescriptor theirs = enums.get(RENAMED.getOrDefault(name, name));
        if (theirs == null) {
            differences.add(where + ": no such enum in Hadoop's classes");
            return;
        }
        Matcher value = VALUE.matcher(body);
        while (value.find()) {
            fields++;
            EnumValueDescriptor other = theirs.findValueByNumber(Integer.parseInt(value.group(2)));
            if (other == null || !other.getName().equals(value.group(1))) {
                differences.add(where + "." + value.group(1) + " = " + value.group(2) + ": theirs is " + other);
            }
        }
    }

    private void compareMessage(String where, String name, String body) {
        Descriptor theirs = messages.get(name);
        if (theirs == null) {
            differences.add(where + ": no such message in Hadoop's classes");
            return;
        }
        List<Integer> seen = new ArrayList<>();
        Matcher field = FIELD.matcher(body);
        while (field.find()) {
            fields++;
            int number = Integer.parseInt(field.group(4));
            seen.add(number);
            FieldDescriptor other = theirs.findFieldByNumber(number);
            String ours = field.group(1) + " " + field.group(2) + " " + field.group(3);
            if (other == null) {
                differences.add(where + ": " + ours + " = " + number + ": they have no such field");
            } else if (!agrees(field, other)) {
                differences.add(where + ": " + ours + " = " + number + ": theirs is " + describe(other));
            }
        }
        for (FieldDescriptor other : theirs.getFields()) {
            if (other.isRequired() && !seen.contains(other.getNumber())) {
                differences.add(where + ": a required field is missing: " + describe(other));
            }
        }
    }

    private static boolean agrees(Matcher ours, FieldDescriptor theirs) {
        boolean packed = ours.group(5) != null && ours.group(5).contains("packed = true");
        String label = theirs.isRequired() ? "required" : theirs.isRepeated() ? "repeated" : "optional";
        String type = ours.group(2).replaceAll(".*\\.", "");
        return label.equals(ours.group(1))
            && theirs.getName().equals(ours.group(3))
            && packed == theirs.isPacked()
            && sameType(type, theirs);
    }

    /** On the wire an enum is a number: some are numbers here, so that unknown ones pass. */
    private static boolean sameType(String ours, FieldDescriptor theirs) {
        return switch (theirs.getType()) {
            case ENUM -> ours.equals("uint32")
                || RENAMED.getOrDefault(ours, ours).equals(theirs.getEnumType().getName());
            // A message that is never looked into may be its bytes here.
            case MESSAGE -> ours.equals(theirs.getMessageType().getName()) || ours.equals("bytes");
            default -> ours.equals(theirs.getType().name().toLowerCase());
        };
    }

    private static String describe(FieldDescriptor field) {
        String label = field.isRequired() ? "required" : field.isRepeated() ? "repeated" : "optional";
        String type = switch (field.getType()) {
            case ENUM -> field.getEnumType().getName();
            case MESSAGE -> field.getMessageType().getName();
            default -> field.getType().name().toLowerCase();
        };
        return label + " " + type + " " + field.getName() + " = " + field.getNumber()
            + (field.isPacked() ? " packed" : "");
    }
}
