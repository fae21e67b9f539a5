import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * The same job on Kafka Streams: sum per task, a record for each level crossed, exactly once.
 *
 * <p>Its argument is a file of Streams' settings; `bench.` are ours. It keeps one sum and one level
 * per task, in memory, with a changelog: far less than the ledger does for the same event.
 */
public final class StreamsApp {
    static final double[] SHARES = {0.9, 1.5, 2.0};
    static final double LIMIT_TOKENS = 6_000;
    static final JsonFactory JSON = new JsonFactory();
    static final ObjectMapper MAPPER = new ObjectMapper(JSON);

    public static void main(String[] arguments) throws IOException {
        Properties settings = new Properties();
        try (InputStream file = Files.newInputStream(Path.of(arguments[0]))) {
            settings.load(file);
        }
        Serde<byte[]> bytes = Serdes.ByteArray();
        StoreBuilder<KeyValueStore<byte[], byte[]>> sums =
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("sums"), bytes, bytes);
        if (Boolean.parseBoolean(settings.getProperty("bench.caching"))) {
            sums = sums.withCachingEnabled(); // the changelog gets a task once a commit
        }
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(sums);
        builder.stream(settings.getProperty("bench.events"), Consumed.with(bytes, bytes))
            .process(Fold::new, "sums")
            .to(settings.getProperty("bench.crossings"), Produced.with(bytes, bytes));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    /** What the job needs of an event: read field by field, as no binding is faster. */
    static final class Event {
        String type = "";
        String id = "";
        long input;
        long read;
        long output;

        static Event parse(byte[] value) throws IOException {
            Event event = new Event();
            try (JsonParser parser = JSON.createParser(value)) {
                while (parser.nextToken() != null) {
                    if (parser.currentToken() != JsonToken.FIELD_NAME) {
                        continue;
                    }
                    String name = parser.currentName();
                    parser.nextToken();
                    switch (name) {
                        case "type" -> event.type = parser.getText();
                        case "id" -> event.id = parser.getText();
                        case "input_tokens" -> event.input = parser.getLongValue();
                        case "cache_read_tokens" -> event.read = parser.getLongValue();
                        case "output_tokens" -> event.output = parser.getLongValue();
                        default -> { }
                    }
                }
            }
            return event;
        }

        double metered() {
            return input - read + 0.1 * read + output;
        }
    }

    static final class Fold implements Processor<byte[], byte[], byte[], byte[]> {
        private ProcessorContext<byte[], byte[]> context;
        private KeyValueStore<byte[], byte[]> sums;

        @Override
        public void init(ProcessorContext<byte[], byte[]> given) {
            context = given;
            sums = given.getStateStore("sums");
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            try {
                fold(record);
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        }

        private void fold(Record<byte[], byte[]> record) throws IOException {
            Event event = Event.parse(record.value());
            if (!event.type.equals("stoploss.phase.usage")) {
                return;
            }
            byte[] stored = sums.get(record.key());
            ByteBuffer before = stored == null ? ByteBuffer.allocate(12) : ByteBuffer.wrap(stored);
            double used = before.getDouble() + event.metered();
            int levelBefore = before.getInt();
            int level = 0;
            for (double share : SHARES) {
                level += used >= share * LIMIT_TOKENS ? 1 : 0;
            }
            level = Math.max(level, levelBefore);
            sums.put(record.key(), ByteBuffer.allocate(12).putDouble(used).putInt(level).array());
            if (level > levelBefore) {
                Map<String, Object> crossing = Map.of(
                    "task_id", new String(record.key()), "level", level, "used", used, "event_id", event.id);
                context.forward(record.withValue(MAPPER.writeValueAsBytes(crossing)));
            }
        }
    }
}
